"""How a Dockerfile's line falls into words: quotes, backslashes, `name=value` pairs and variables. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from tare.errors import InvalidArgument

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*|[0-9@*#?!-])|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:[-+?])([^}]*))?\})")


def split_words(text: str) -> list[str]:
    """Words at blanks outside quotes; quotes and backslashes stay in the words."""
    words: list[str] = []
    word = ""
    quote = ""
    inside = False
    position = 0
    while position < len(text):
        letter = text[position]
        if letter == "\\" and quote != "'" and position + 1 < len(text):
            word += text[position : position + 2]
            inside = True
            position += 2
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            if inside:
                words.append(word)
            word, inside = "", False
            position += 1
            continue
        word += letter
        inside = True
        position += 1
    if inside:
        words.append(word)
    return words


def name_values(verb: str, rest: str) -> list[tuple[str, str]]:
    """The pairs of `ENV a=b c="d e"`, or the one pair of the old form `ENV a b c`."""
    words = split_words(rest)
    if not words:
        raise InvalidArgument(f"{verb} requires at least one argument")
    if "=" not in words[0]:
        name, *values = rest.split(None, 1)
        if not values:
            raise InvalidArgument(f"{verb} must have two arguments")
        return [(name, values[0])]
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not name:
            raise InvalidArgument(f"{verb} names can not be blank")
        pairs.append((name, value))
    return pairs


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with variables replaced, and quotes and backslashes taken away, as a shell would."""
    try:
        return _expand(text, variables)
    except ValueError as error:
        raise InvalidArgument(f"failed to process {json.dumps(text, ensure_ascii=False)}: {error}") from None


def _expand(text: str, variables: Mapping[str, str]) -> str:
    out = []
    quote = ""
    position = 0
    while position < len(text):
        letter = text[position]
        if quote == "'":
            if letter == "'":
                quote = ""
            else:
                out.append(letter)
        elif letter == "\\":
            following = text[position + 1 : position + 2]
            if quote and following not in ('"', "$", "\\"):
                out.append(letter)
            out.append(following)
            position += 1
        elif letter in "'\"" and (not quote or letter == quote):
            quote = "" if quote else letter
        elif text.startswith("${", position) and "}" not in text[position:]:
            raise ValueError("syntax error: missing '}'")
        elif letter == "$" and (found := _VARIABLE.match(text, position)):
            out.append(_value(found, variables))
            position = found.end() - 1
        else:
            out.append(letter)
        position += 1
    if quote:
        kind = "single" if quote == "'" else "double"
        raise ValueError(f"unexpected end of statement while looking for matching {kind}-quote")
    return "".join(out)


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name = found[1] or found[2]
    value = variables.get(name, "")
    operator, word = found[3], found[4] or ""
    if operator == ":-":
        return value or _expand(word, variables)
    if operator == ":+":
        return _expand(word, variables) if value else ""
    if operator == ":?" and not value:
        raise ValueError(f"{name}: {word or 'parameter is not allowed to be unset'}")
    return value
