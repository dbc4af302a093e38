"""What a registry asks for with 401: WWW-Authenticate as values (RFC 9110, 11.6.1). Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEADER_BYTES = 16 << 10
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|\Z|(?=,))")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')


class Challenge(NamedTuple):
    """scheme: in lower case. parameters: by name in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """All challenges of a header (several headers come joined by commas). What isn't understood is left out."""
    found: list[Challenge] = []
    text, place = header[:MAX_HEADER_BYTES], 0
    while place < len(text):
        parameter = _PARAMETER.match(text, place)
        if parameter and found:
            value = parameter[2] if parameter[2] is not None else parameter[3]
            found[-1].parameters.setdefault(parameter[1].lower(), re.sub(r"\\(.)", r"\1", value))
            place = parameter.end()
            continue
        scheme = _SCHEME.match(text, place)
        if scheme is None:
            break
        found.append(Challenge(scheme[1].lower(), {}))
        place = scheme.end()
    return found


def choose_challenge(challenges: list[Challenge]) -> Challenge | None:
    """The best that we can answer: a token rather than a password."""
    for scheme in ("bearer", "basic"):
        for challenge in challenges:
            if challenge.scheme == scheme:
                return challenge
    return None
