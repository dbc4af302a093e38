"""Parses JSON from clients: bounded in depth before it is parsed, with Go's words for what is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from tare.errors import InvalidArgument

MAX_DEPTH = 200
# A string that doesn't end is taken to the end, too: each byte is looked at once, whatever the input.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+\\?(?:"|\Z)|[\[{]|[\]}]', re.S)
_decoder = msgspec.json.Decoder()


def check_depth(data: bytes, limit: int = MAX_DEPTH) -> None:
    """Raises InvalidArgument if arrays and objects are nested deeper than limit. Linear, and builds nothing."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return
    depth = 0
    for found in _BRACKETS.finditer(data):
        first = found[0][0]
        if first in b"[{":
            depth += 1
            if depth > limit:
                raise InvalidArgument("exceeded max depth")
        elif first in b"]}":
            depth -= 1


def parse_json(data: bytes) -> Any:
    """The first document in data (Go's decoder doesn't look behind it, either). Raises InvalidArgument."""
    check_depth(data)
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    text = data.decode("utf-8", "replace")
    try:
        value = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text.lstrip(" \t\r\n"))[0]
        # Half a surrogate pair is no character: Go puts another in its place; nothing behind this could store it.
        return _decoder.decode(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument(_go_words(text, error)) from error
    except RecursionError as error:
        raise InvalidArgument("exceeded max depth") from error


def _refuse_constant(name: str) -> None:
    """NaN and the infinities, which Python's decoder would take."""
    raise InvalidArgument(f"invalid character '{name[0]}' looking for beginning of value")


def _quote(character: str) -> str:
    """A character as Go prints it in a syntax error."""
    if character == "'":
        return r"'\''"
    if character == '"':
        return "'\"'"
    if ord(character) < 0x20 or ord(character) == 0x7F:
        named = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
        return f"'{named.get(character, f'{chr(92)}x{ord(character):02x}')}'"
    return f"'{character}'"


def _go_words(text: str, error: Exception) -> str:
    """Go's sentence for a syntax error at the place where Python's decoder stopped."""
    stripped = text.lstrip(" \t\r\n")
    if not stripped:
        return "EOF"
    at = getattr(error, "pos", 0)
    message = getattr(error, "msg", "")
    if "Unterminated string" in message or at >= len(stripped.rstrip(" \t\r\n")):
        return "unexpected EOF"
    found = _quote(stripped[at])
    if message.startswith("Expecting property name"):
        return f"invalid character {found} looking for beginning of object key string"
    if message.startswith("Illegal trailing comma"):  # Python 3.13 points at the comma
        closing = stripped[at + 1 :].lstrip(" \t\r\n")[:1] or "}"
        what = "beginning of object key string" if closing == "}" else "beginning of value"
        return f"invalid character {_quote(closing)} looking for {what}"
    if message.startswith("Expecting ':'"):
        return f"invalid character {found} after object key"
    if message.startswith("Expecting ','"):
        inside = "array element" if _inside_array(stripped[:at]) else "object key:value pair"
        return f"invalid character {found} after {inside}"
    if message.startswith("Invalid control character"):
        return f"invalid character {found} in string literal"
    if message.startswith("Invalid \\"):
        return f"invalid character {_quote(stripped[at + 1 : at + 2] or ' ')} in string escape code"
    return _literal_words(stripped[at:]) or f"invalid character {found} looking for beginning of value"


def _literal_words(rest: str) -> str | None:
    for literal in ("true", "false", "null"):
        if rest[0] == literal[0]:
            for index, expected in enumerate(literal):
                if index >= len(rest):
                    return "unexpected EOF"
                if rest[index] != expected:
                    return f"invalid character {_quote(rest[index])} in literal {literal} (expecting '{expected}')"
    return None


def _inside_array(before: str) -> bool:
    """Whether the innermost open bracket before a place is that of an array."""
    stack = []
    for found in _BRACKETS.finditer(before.encode()):
        first = found[0][:1]
        if first in (b"[", b"{"):
            stack.append(first)
        elif first in (b"]", b"}") and stack:
            stack.pop()
    return bool(stack) and stack[-1] == b"["
