"""The functions that templates can call: Go's own and those that Docker adds. Pure."""

from __future__ import annotations

from tare.cli.gotemplate.errors import FunctionError
from tare.cli.gotemplate.printf import format_printf
from tare.cli.gotemplate.values import NO_VALUE, NoValue, format_value, is_true, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, list | tuple | dict):
        return len(value)
    raise FunctionError(f"len of type {type_name(value)}")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None or isinstance(value, NoValue):
            raise FunctionError("index of untyped nil")
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise FunctionError(f"value has type {type_name(key)}; should be string")
            value = value.get(key, "")
        elif isinstance(value, list | tuple | str):
            if not isinstance(key, int) or isinstance(key, bool):
                raise FunctionError(f"cannot index slice/array with type {type_name(key)}")
            if not 0 <= key < len(value):
                raise FunctionError(f"index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        else:
            raise FunctionError(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: Any, *places: int) -> Any:
    if not isinstance(value, list | tuple | str):
        raise FunctionError(f"can't slice item of type {type_name(value)}")
    if len(places) > 2:
        raise FunctionError("too many slice indexes")
    for place in places:
        if not isinstance(place, int) or not 0 <= place <= len(value):
            raise FunctionError(f"index out of range: {place}")
    start = places[0] if places else 0
    end = places[1] if len(places) > 1 else len(value)
    if start > end:
        raise FunctionError(f"invalid slice index: {start} > {end}")
    return value[start:end]


def type_name(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list | tuple):
        return "[]string" if all(isinstance(item, str) for item in value) else "[]interface {}"
    if isinstance(value, dict):
        return "map[string]interface {}"
    return str(getattr(value, "kind", "<nil>"))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if value is None or isinstance(value, NoValue):
        return "nil"
    raise FunctionError(f"non-comparable type {format_value(value)}: {type_name(value)}")


def _equal(first: object, *others: object) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    kind = _kind(first)
    for other in others:
        other_kind = _kind(other)
        if kind != other_kind and "nil" not in (kind, other_kind):
            raise FunctionError("incompatible types for comparison")
        if kind == other_kind and (kind == "nil" or first == other):
            return True
    return False


def _less(first: Any, second: Any) -> bool:
    kind = _kind(first)
    if kind != _kind(second):
        raise FunctionError("incompatible types for comparison")
    if kind not in ("number", "string"):
        raise FunctionError("invalid type for comparison")
    return bool(first < second)


def _print(*values: object) -> str:
    """Go's Sprint: a space between two operands neither of which is a string."""
    text = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            text += " "
        text += format_value(value)
    return text


def _html(*values: object) -> str:
    text = _print(*values)
    for plain, escaped in (("&", "&amp;"), ("'", "&#39;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;")):
        text = text.replace(plain, escaped)
    return text


def _js(*values: object) -> str:
    text = _print(*values).replace("\\", "\\\\")
    for plain, escaped in (
        ("'", "\\'"),
        ('"', '\\"'),
        ("<", "\\u003C"),
        (">", "\\u003E"),
        ("&", "\\u0026"),
        ("=", "\\u003D"),
    ):
        text = text.replace(plain, escaped)
    return "".join(letter if letter >= " " else f"\\u{ord(letter):04X}" for letter in text)


def _urlquery(*values: object) -> str:
    from tare.client.engine import quote

    return quote(_print(*values), " ").replace(" ", "+")


def _text(value: object, function: str) -> str:
    if not isinstance(value, str):
        raise FunctionError(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _join(items: Any, separator: str) -> str:
    if not isinstance(items, list | tuple):
        raise FunctionError(f"wrong type for value; expected []string; got {type_name(items)}")
    return separator.join(format_value(item) for item in items)


def _title(value: object) -> str:
    """Upper case after anything that is no letter, digit, underscore or apostrophe-free word character."""
    text = _text(value, "title")
    before = " "
    out = []
    for letter in text:
        starts = not (before.isalnum() or before == "_" or before == "'")
        out.append(letter.upper() if starts else letter)
        before = letter
    return "".join(out)


def _pad(value: object, before: int, after: int) -> str:
    text = _text(value, "pad")
    return " " * before + text + " " * after if text else ""


def _truncate(value: object, length: int) -> str:
    return _text(value, "truncate")[:length]


def _refuse_call(*_values: object) -> object:
    raise FunctionError("can't call non-function")


FUNCTIONS: dict[str, Callable[..., object]] = {
    "call": _refuse_call,
    "eq": _equal,
    "ge": lambda first, second: not _less(first, second),
    "gt": lambda first, second: not _less(first, second) and not _equal(first, second),
    "html": _html,
    "index": _index,
    "join": _join,
    "js": _js,
    "json": to_json,
    "le": lambda first, second: _less(first, second) or _equal(first, second),
    "len": _length,
    "lower": lambda value: _text(value, "lower").lower(),
    "lt": _less,
    "ne": lambda first, second: not _equal(first, second),
    "not": lambda value: not is_true(value),
    "pad": _pad,
    "print": _print,
    "printf": format_printf,
    "println": lambda *values: " ".join(map(format_value, values)) + "\n",
    "slice": _slice,
    "split": lambda value, separator: _text(value, "split").split(separator) if separator else list(value),
    "title": _title,
    "truncate": _truncate,
    "upper": lambda value: _text(value, "upper").upper(),
    "urlquery": _urlquery,
}
SHORT_CIRCUIT = ("and", "or")  # evaluated argument by argument, by the evaluator

# While a table's header is made, these leave the header's words alone.
_HEADER_FUNCTIONS = {
    name: (lambda value, *_rest: value) for name in ("json", "split", "join", "title", "lower", "upper", "truncate")
}
HEADER_FUNCTIONS: dict[str, Callable[..., object]] = {**FUNCTIONS, **_HEADER_FUNCTIONS}

__all__ = ["FUNCTIONS", "HEADER_FUNCTIONS", "NO_VALUE", "SHORT_CIRCUIT", "type_name"]
