"""Moments as users give them (--since, --until): "10m", "2013-01-02T13:23:37Z", "2013-01-02", "1136073845.5"."""

from __future__ import annotations

import time

from tare.cli.flagkinds import parse_duration_ns
from tare.cli.units import unix_seconds

_LAYOUTS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d")


def parse_moment(text: str) -> str:
    """The API's form: seconds since 1970, with nanoseconds where they are known."""
    try:
        return str((time.time_ns() - parse_duration_ns(text)) // 1_000_000_000)
    except ValueError:
        pass
    whole, _, fraction = text.partition(".")
    if whole.removeprefix("-").isdecimal() and (not fraction or fraction.isdecimal()):
        return text
    return _parse_date(text)


def _parse_date(text: str) -> str:
    bad = ValueError(f'failed to parse value as time or duration: "{text}"')
    date, separator, rest = text.partition("T")
    zone = ""
    for at, letter in enumerate(rest):
        if letter in "Z+-":
            rest, zone = rest[:at], rest[at:]
            break
    clock, _, fraction = rest.partition(".")
    if fraction and not fraction.isdecimal():
        raise bad
    for layout in _LAYOUTS:
        try:
            parts = time.strptime(date + separator + clock, layout)
        except ValueError:
            continue
        if zone:
            seconds = unix_seconds(*parts[:6]) - _offset_s(zone, bad)
        elif text.endswith("Z"):
            seconds = unix_seconds(*parts[:6])
        else:
            seconds = int(time.mktime(parts))
        return f"{seconds}.{(fraction or '0')[:9]:0<9}"
    raise bad


def _offset_s(zone: str, bad: ValueError) -> int:
    if zone == "Z":
        return 0
    hours, _, minutes = zone[1:].partition(":")
    if not (hours.isdecimal() and (minutes or "0").isdecimal()):
        raise bad
    offset = int(hours) * 3600 + int(minutes or 0) * 60
    return -offset if zone[0] == "-" else offset
