"""Instants as nanoseconds since the epoch (UTC), and the texts that Docker's API has for them. Pure."""

from __future__ import annotations

import re
import time
from calendar import timegm

from tare.errors import InvalidArgument

ZERO_TEXT = "0001-01-01T00:00:00Z"
ZERO_S = -62135596800
NEVER_NS = -(1 << 63)
"""What `storable` makes of Go's zero time, which says that nothing is known."""
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?(Z|z|[+-]\d\d:\d\d)?\Z"
)
_UNIX = re.compile(r"(-?\d{1,18})(?:\.(\d{1,9})\d*)?\Z")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def now_ns() -> int:
    """This instant."""
    return time.time_ns()


def format_rfc3339(instant_ns: int | None) -> str:
    """`2026-11-24T05:35:02.123456789Z` with trailing zeros dropped, as Go's RFC3339Nano; None is Go's zero time."""
    return format_instant(instant_ns or NEVER_NS)


def format_instant(instant_ns: int) -> str:
    """The same of an instant that is there: 0 is the beginning of 1970."""
    if instant_ns <= NEVER_NS:
        return ZERO_TEXT
    seconds, fraction = divmod(instant_ns, 10**9)
    t = time.gmtime(seconds)
    text = f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}"
    if fraction:
        text += f".{fraction:09d}".rstrip("0")
    return text + "Z"


def storable(instant_ns: int) -> int:
    """The nearest instant that 64 bits hold: from 1677 to 2262."""
    return min(max(instant_ns, NEVER_NS), (1 << 63) - 1)


def unix_seconds(instant_ns: int) -> int:
    """The Unix time of a storable instant."""
    return ZERO_S if instant_ns <= NEVER_NS else instant_ns // 10**9


def parse_rfc3339(text: str) -> int:
    """An RFC 3339 instant (a date or a date with time; UTC where no zone is given). Raises InvalidArgument."""
    found = _RFC3339.match(text)
    if not found:
        raise InvalidArgument(f'parsing time "{text[:64]}": not RFC 3339')
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    is_date = int(year) and 1 <= int(month) <= 12 and 1 <= int(day) <= 31
    if not is_date or int(hour or 0) > 23 or int(minute or 0) > 59:
        raise InvalidArgument(f'parsing time "{text[:64]}": out of range')
    seconds = timegm((int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), 0, 0, 0))
    if zone and zone not in "Zz":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * 10**9 + int((fraction or "0").ljust(9, "0"))


def parse_duration(text: str) -> int:
    """A Go duration (`1h30m`, `10s`, `-1.5s`, `0`) in nanoseconds. Raises InvalidArgument with Go's text."""
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return 0
    total, at = 0.0, 0
    for found in _DURATION.finditer(body):
        if found.start() != at:
            break
        total += float(found[1]) * _UNIT_NS[found[2]]
        at = found.end()
    if at != len(body) or not body:
        raise InvalidArgument(f'time: invalid duration "{text[:64]}"')
    return -int(total) if text.startswith("-") else int(total)


def parse_instant(text: str, *, relative_to_ns: int | None = None) -> int:
    """An instant as `since` and `until` take it: Unix seconds with an optional fraction, RFC 3339, or a Go duration
    back from relative_to_ns (now). Raises InvalidArgument."""
    found = _UNIX.match(text)
    if found:
        fraction = int((found[2] or "0").ljust(9, "0"))
        seconds = int(found[1])
        return seconds * 10**9 + (-fraction if text.startswith("-") else fraction)
    if _RFC3339.match(text):
        return parse_rfc3339(text)
    try:
        ago = parse_duration(text)
    except InvalidArgument as error:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text[:64]}"') from error
    return (now_ns() if relative_to_ns is None else relative_to_ns) - ago
