"""JSON text to values and back, without the `json` package (which imports `re`, 4 ms of every command's start).

Uses the C scanner that CPython's own `json` uses; where an interpreter lacks it, `json` itself. Must never guess: text
that isn't JSON raises ValueError.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

WHITESPACE = " \t\n\r"
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class _Rules:
    """What `make_scanner` wants to know; the attribute names are CPython's."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = _CONSTANTS.__getitem__
    memo: dict[str, str] = {}  # noqa: RUF012 - read by C code as a plain attribute


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    try:
        from _json import make_scanner

        scanner: Callable[[str, int], tuple[Any, int]] = make_scanner(_Rules())  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):  # not CPython, or one whose scanner wants to know more
        import json

        return json.JSONDecoder(strict=False).scan_once  # type: ignore[attr-defined, no-any-return]
    return scanner


_scan = _scanner()


def _skip(text: str, start: int) -> int:
    length = len(text)
    while start < length and text[start] in WHITESPACE:
        start += 1
    return start


def parse_json(text: str | bytes) -> Any:
    """The one value that `text` holds."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    value, end = _scan_at(text, _skip(text, 0))
    if _skip(text, end) != len(text):
        raise ValueError(f"extra data after JSON at character {end}")
    return value


def parse_json_prefix(text: str, start: int = 0) -> tuple[Any, int]:
    """The first value at or after `start` and the index behind it; raises ValueError if it is not whole yet."""
    return _scan_at(text, _skip(text, start))


def skip_blanks(text: str, start: int) -> int:
    """The index of the next character that isn't JSON white space."""
    return _skip(text, start)


def _scan_at(text: str, start: int) -> tuple[Any, int]:
    try:
        return _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"no JSON value at character {stop.value}") from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except SystemError:  # the scanner's own error class is in json.decoder, which isn't loaded
        raise ValueError(f"no proper JSON at or after character {start}") from None


def _quoter() -> Callable[[str], str]:
    try:
        from _json import encode_basestring
    except ImportError:
        from json.encoder import encode_basestring
    quoter: Callable[[str], str] = encode_basestring
    return quoter


_quote = _quoter()


def format_string(value: str) -> str:
    """A JSON string literal, as Go's encoder writes it without HTML escaping."""
    quoted = _quote(value)
    if "\u2028" in quoted or "\u2029" in quoted:
        quoted = quoted.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return quoted


def format_float(value: float) -> str:
    """A number as Go's encoding/json writes a float64: shortest digits, exponent only for the very large and small."""
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        raise ValueError(f"{text} has no JSON form")
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    digits, _, exponent = text.partition("e")
    if not exponent:
        return text
    power = int(exponent)
    if -7 < power < 0:  # Python writes 2.5e-05 where Go writes 0.000025
        minus = "-" if digits[0] == "-" else ""
        return f"{minus}0.{'0' * (-power - 1)}{digits.lstrip('-').replace('.', '')}"
    return f"{digits}e{power:+d}"


def format_json(value: object, indent: str = "", escape_html: bool = False) -> str:
    """JSON text of `value`: compact, or one item a line with `indent` per level (both as Go lays them out)."""
    parts: list[str] = []
    _write(parts.append, value, indent, "\n" if indent else "")
    text = "".join(parts)
    if escape_html:
        for plain, escaped in _ESCAPES.items():
            text = text.replace(plain, escaped)
    return text


def _write(put: Callable[[str], object], value: object, indent: str, newline: str) -> None:
    if value is None:
        put("null")
    elif value is True:
        put("true")
    elif value is False:
        put("false")
    elif isinstance(value, str):
        put(format_string(value))
    elif isinstance(value, int):
        put(str(value))
    elif isinstance(value, float):
        put(format_float(value))
    elif isinstance(value, dict):
        _write_items(put, [(str(k), v) for k, v in value.items()], indent, newline, "{}")
    elif isinstance(value, list | tuple):
        _write_items(put, [(None, v) for v in value], indent, newline, "[]")
    else:
        raise TypeError(f"{type(value).__name__} has no JSON form")


def _write_items(
    put: Callable[[str], object],
    items: Sequence[tuple[str | None, object]],
    indent: str,
    newline: str,
    brackets: str,
) -> None:
    if not items:
        put(brackets)
        return
    inner = newline + indent
    put(brackets[0])
    first = True
    for key, item in items:
        put(inner if first else "," + inner)
        first = False
        if key is not None:
            put(format_string(key) + (": " if indent else ":"))
        _write(put, item, indent, inner)
    put(newline + brackets[1])
