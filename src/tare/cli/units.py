"""Sizes, durations and times as Docker's command line prints them. Pure."""

from __future__ import annotations

import time

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def _scaled(size: float, step: float, units: tuple[str, ...], digits: int) -> str:
    unit = 0
    while size >= step and unit < len(units) - 1:
        size /= step
        unit += 1
    return f"{size:.{digits}g}{units[unit]}"


def format_size(size_bytes: float, digits: int = 4) -> str:
    """12.3MB: powers of 1000."""
    return _scaled(float(size_bytes), 1000.0, _DECIMAL, digits)


def format_binary_size(size_bytes: float) -> str:
    """23.54GiB: powers of 1024."""
    return _scaled(float(size_bytes), 1024.0, _BINARY, 4)


def format_age(seconds: float) -> str:
    """About a minute, 2 hours, 3 weeks …"""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = int(seconds / 60)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def format_ago(unix_s: float) -> str:
    """`5 minutes ago`; of Go's zero time, which stands for none, nothing is known."""
    if unix_s == unix_seconds(1, 1, 1):
        return "N/A"
    return format_age(time.time() - unix_s) + " ago"


def format_local(unix_s: int) -> str:
    """2026-11-24 05:50:44 +0000 UTC, in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(unix_s))


def format_local_rfc3339(unix_s: int) -> str:
    """2026-11-24T05:50:44Z, or with the local offset."""
    local = time.localtime(unix_s)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
    offset = local.tm_gmtoff // 60
    if not offset:
        return text + "Z"
    sign = "-" if offset < 0 else "+"
    return f"{text}{sign}{abs(offset) // 60:02}:{abs(offset) % 60:02}"


def unix_seconds(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """Seconds since 1970 of a moment in UTC (`calendar.timegm`, whose import costs 10 ms)."""
    if month <= 2:  # count years from March: the leap day then comes last
        year, month = year - 1, month + 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def parse_rfc3339(text: str) -> tuple[int, int]:
    """(seconds since 1970, nanoseconds) of 2026-11-24T05:50:44.907879958Z or with an offset."""
    date, separator, rest = text.partition("T")
    if not separator:
        date, separator, rest = text.partition(" ")
    year, month, day = date.split("-")
    at = next((i for i, letter in enumerate(rest) if letter in "Z+-"), len(rest))
    clock, zone = rest[:at], rest[at:]
    hour, minute, second = (clock or "0:0:0").split(":")
    whole, _, fraction = second.partition(".")
    seconds = unix_seconds(int(year), int(month), int(day), int(hour), int(minute), int(whole))
    if zone[:1] in ("+", "-"):
        shift = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        seconds -= shift if zone[0] == "+" else -shift
    return seconds, int((fraction or "0")[:9].ljust(9, "0"))


def short_id(identity: str) -> str:
    """12 digits of an id, without its algorithm."""
    return identity.rpartition(":")[2][:12]


def ellipsis(text: str, width: int) -> str:
    """`text` cut to `width` characters, the last of which then is …"""
    if len(text) <= width:
        return text
    return text[: width - 1] + "…" if width > 1 else text[:width]


def go_quote(text: str) -> str:
    """A Go string literal (strconv.Quote)."""
    parts = ['"']
    for letter in text:
        code = ord(letter)
        if letter in '"\\':
            parts.append("\\" + letter)
        elif letter in _GO_ESCAPES:
            parts.append(_GO_ESCAPES[letter])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif letter.isprintable():
            parts.append(letter)
        elif code < 0x80:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join([*parts, '"'])


_GO_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
