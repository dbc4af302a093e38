"""JSON from clients ↔ option records, by rule: snake_case fields are CamelCase keys but for a table of exceptions.

Decoding does what Go's encoding/json does: keys match in any case, unknown keys are ignored, null means not given, and
a value of the wrong kind is refused with Go's sentence, so that a client sees what a real dockerd would have said.
"""

from __future__ import annotations

import types
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from tare.api.wire_names import GO_FIELD_TYPES, GO_STRUCTS, KEYS, OMITTED_WHEN_EMPTY, STRING_OR_LIST
from tare.errors import InvalidArgument

S = TypeVar("S", bound=msgspec.Struct)
_RANGES = {
    "int64": (-(1 << 63), (1 << 63) - 1),
    "int": (-(1 << 63), (1 << 63) - 1),
    "time.Duration": (-(1 << 63), (1 << 63) - 1),
    "uint16": (0, (1 << 16) - 1),
    "uint": (0, (1 << 64) - 1),
    "fs.FileMode": (0, (1 << 32) - 1),
}
_ZERO: dict[Any, Any] = {str: "", int: 0, bool: False}


class _Place(NamedTuple):
    """Where in a document a value stands: the innermost Go struct, and the keys that lead there."""

    struct: str
    path: tuple[str, ...]

    def inside(self, struct: str) -> _Place:
        return _Place(struct, self.path)

    def at(self, key: str) -> _Place:
        return _Place(self.struct, (*self.path, key))


class _Field(NamedTuple):
    name: str
    key: str
    type: Any
    go_type: str | None
    string_or_list: bool


class _Shape(NamedTuple):
    by_key: dict[str, _Field]
    go_name: str


_shapes: dict[type, _Shape] = {}


def json_key(field: str) -> str:
    """The JSON key of a field: `memory_swap` → `MemorySwap`."""
    return KEYS.get(field) or "".join(part[:1].upper() + part[1:] for part in field.split("_"))


def _takes_string(kind: type[msgspec.Struct], field: str) -> bool:
    return field in STRING_OR_LIST and kind.__name__ != "ExecOptions"


def _shape(kind: type[msgspec.Struct]) -> _Shape:
    made = _shapes.get(kind)
    if made is None:
        fields = {}
        hints = get_type_hints(kind)
        for name in kind.__struct_fields__:
            go = GO_FIELD_TYPES.get((kind.__name__, name)) or GO_FIELD_TYPES.get(("", name))
            key = json_key(name)
            fields[key.lower()] = _Field(name, key, hints[name], go, _takes_string(kind, name))
        made = _shapes[kind] = _Shape(fields, GO_STRUCTS.get(kind.__name__, (kind.__name__, kind.__name__))[0])
    return made


# -- decoding ---------------------------------------------------------------------------------------------------------


def decode(kind: type[S], value: Any) -> S:
    """value (parsed JSON) as a record; None gives all defaults. Raises InvalidArgument with Go's sentence."""
    if value is None:
        return kind()
    shape = _shape(kind)
    if not isinstance(value, dict):
        full = GO_STRUCTS.get(kind.__name__, (kind.__name__, kind.__name__))[1]
        raise InvalidArgument(f"json: cannot unmarshal {_kind_name(value)} into Go value of type {full}")
    return cast(S, _record(kind, value, _Place(shape.go_name, ())))


def given_fields(kind: type[msgspec.Struct], value: Any) -> frozenset[str]:
    """Which of a record's fields a document gives (null doesn't)."""
    if not isinstance(value, dict):
        return frozenset()
    fields = _shape(kind).by_key
    return frozenset(fields[key.lower()].name for key in value if key.lower() in fields and value[key] is not None)


def _record(kind: type[msgspec.Struct], value: dict[str, Any], place: _Place) -> msgspec.Struct:
    shape = _shape(kind)
    place = place.inside(shape.go_name)
    given: dict[str, Any] = {}
    for key, item in value.items():
        field = shape.by_key.get(key.lower())
        if field is None or item is None:
            continue
        given[field.name] = _value(field.type, item, place.at(field.key), field)
    return kind(**given)


def _value(kind: Any, value: Any, place: _Place, field: _Field) -> Any:
    """One value of a field (never null)."""
    if get_origin(kind) in (types.UnionType, Union):
        kind = next(option for option in get_args(kind) if option is not type(None))
    origin = get_origin(kind)
    if kind is str or kind is bool or kind is object:
        if kind is object or type(value) is kind:
            return value
        raise _mismatch(value, place, _go_type(kind, field))
    if kind is int:
        return _integer(value, place, field.go_type or "int64")
    if origin is dict:
        return _mapping(kind, value, place, field)
    if origin is tuple:
        return _sequence(kind, value, place, field)
    if not isinstance(value, dict):
        raise _mismatch(value, place, _go_type(kind, field))
    return _record(kind, value, place)


def _mapping(kind: Any, value: Any, place: _Place, field: _Field) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(value, place, _go_type(kind, field))
    inner = get_args(kind)[1]
    element = field._replace(go_type=_element_type(field.go_type))
    return {key: _item(inner, item, place, element) for key, item in value.items()}


def _sequence(kind: Any, value: Any, place: _Place, field: _Field) -> tuple[Any, ...]:
    arguments = get_args(kind)
    if field.string_or_list and not isinstance(value, list):
        if isinstance(value, str):
            return (value,)
        raise _mismatch(value, place, "string")
    if not isinstance(value, list):
        raise _mismatch(value, place, _go_type(kind, field))
    if field.string_or_list and not all(item is None or isinstance(item, str) for item in value):
        raise _mismatch(value, place, "string")  # as Go's StrSlice: neither a list of strings nor a string
    element = field._replace(go_type=_element_type(field.go_type), string_or_list=False)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_item(arguments[0], item, place, element) for item in value)
    # A Go array: what is too much is dropped, what is missing is zero.
    padded = [*value, *[None] * len(arguments)][: len(arguments)]
    return tuple(_item(inner, item, place, element) for inner, item in zip(arguments, padded, strict=True))


def _item(kind: Any, value: Any, place: _Place, field: _Field) -> Any:
    """An element of a list or map; null is the zero value there."""
    if value is not None:
        return _value(kind, value, place, field)
    options = get_args(kind) if get_origin(kind) in (types.UnionType, Union) else (kind,)
    if type(None) in options:
        return None
    if kind in _ZERO:
        return _ZERO[kind]
    if get_origin(kind) is dict:
        return {}
    return () if get_origin(kind) is tuple else kind()


def _integer(value: Any, place: _Place, go_type: str) -> int:
    if type(value) is not int and type(value) is not float:
        raise _mismatch(value, place, go_type)
    lowest, highest = _RANGES[go_type]
    if type(value) is float or not lowest <= value <= highest:
        raise _mismatch(value, place, go_type, f"number {_number_text(value)}")
    return cast(int, value)


def _number_text(value: float) -> str:
    """A number as the client will have written it."""
    text = repr(value).replace("e+", "e")
    return text if type(value) is int else text.removesuffix(".0")


def _kind_name(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _mismatch(value: Any, place: _Place, go_type: str, what: str = "") -> InvalidArgument:
    where = f"{place.struct}.{'.'.join(place.path)}"
    return InvalidArgument(
        f"json: cannot unmarshal {what or _kind_name(value)} into Go struct field {where} of type {go_type}"
    )


def _go_type(kind: Any, field: _Field) -> str:
    """What Go calls a field's type."""
    if field.go_type is not None:
        return field.go_type
    if get_origin(kind) in (types.UnionType, Union):
        kind = next(option for option in get_args(kind) if option is not type(None))
    plain = {str: "string", int: "int64", bool: "bool"}.get(kind)
    if plain is not None:
        return plain
    bare = field._replace(go_type=None)
    if get_origin(kind) is dict:
        return f"map[string]{_go_type(get_args(kind)[1], bare)}"
    if get_origin(kind) is tuple:
        return f"[]{_go_type(get_args(kind)[0], bare)}"
    return GO_STRUCTS.get(getattr(kind, "__name__", ""), ("", "interface {}"))[1]


def _element_type(go_type: str | None) -> str | None:
    """The type of the elements of a Go type that has a name of its own, if known."""
    if go_type is None:
        return None
    named = {"nat.PortSet": "struct {}", "nat.PortMap": "[]nat.PortBinding", "[2]uint": "uint"}
    if go_type in named:
        return named[go_type]
    if go_type.startswith("map[string]"):
        return go_type.removeprefix("map[string]").removeprefix("*")
    return go_type.removeprefix("[]") if go_type.startswith("[]") else None


# -- encoding ---------------------------------------------------------------------------------------------------------


def encode(record: msgspec.Struct, *, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A record as Docker prints it: every field but those that Docker leaves out when they are empty."""
    made: dict[str, Any] = {}
    optional = OMITTED_WHEN_EMPTY.get(type(record).__name__, frozenset())
    for field in _shape(type(record)).by_key.values():
        value = getattr(record, field.name)
        if field.name in skip or (field.name in optional and _is_empty(field, value)):
            continue
        made[field.key] = _encoded(value)
    return made


def _is_empty(field: _Field, value: Any) -> bool:
    """What Go's omitempty leaves out: zero values, but a number or flag that may be null only when it is."""
    if value is None or isinstance(value, str | tuple | dict):
        return not value
    return not value and type(None) not in get_args(field.type)


def _encoded(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return encode(value)
    if isinstance(value, tuple | list):
        return [_encoded(item) for item in value]
    if isinstance(value, dict):
        return {key: _encoded(item) for key, item in value.items()}
    return value
