"""The kinds of flag values: how each is read, what it is when not given, how --help names it.

Error texts are those of Go's strconv and Docker's value types: scripts and users know them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.command import Flag

LIST_KINDS = frozenset({"list", "strings", "map", "filter", "mount", "network", "ulimit", "gpu-request", "ips"})
PLACEHOLDERS = {"int64": "int", "uint64": "uint", "ips": "ipSlice"}

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INT_BITS = {"int": 64, "int64": 64, "uint16": 16, "uint64": 64, "uint": 64}
_BYTE_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def empty_value(flag: Flag) -> object:
    if flag.kind in LIST_KINDS:
        return list(flag.default) if isinstance(flag.default, tuple) else []
    if flag.default is not None:
        return flag.default
    if flag.kind == "bool":
        return False
    if flag.kind in ("int", "int64", "uint16", "uint64", "bytes", "duration", "decimal"):
        return 0
    return ""


def parse_flag_value(flag: Flag, text: str) -> object:
    kind = flag.kind
    if kind == "bool":
        return parse_bool(text)
    if flag.check is not None:
        return flag.check(text)
    if kind in _INT_BITS:
        return parse_int(text, kind)
    if kind == "bytes":
        return parse_bytes(text)
    if kind == "duration":
        return parse_duration_ns(text)
    if kind == "decimal":
        return parse_nano_cpus(text)
    if kind == "strings":
        return split_csv(text)
    if kind == "filter":
        return parse_filter(text)
    if kind == "map":
        return parse_map_item(text)
    if kind == "ip":
        return parse_ip(text)
    return text


def parse_bool(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_int(text: str, kind: str = "int") -> int:
    """Go's strconv.ParseInt(text, 0, bits): decimal, 0x, 0o, 0b, or octal after a leading 0; `_` between digits."""
    signed = not kind.startswith("u")
    function = "ParseInt" if signed else "ParseUint"
    digits = text.lstrip("+-") if signed and len(text) - len(text.lstrip("+-")) <= 1 else text
    try:
        if not text.isascii() or text != text.strip() or not digits or (not signed and text[0] in "+-"):
            raise ValueError
        old_octal = digits[0] == "0" and digits.isdecimal()
        value = int(digits, 8 if old_octal else 0)
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax') from None
    if text[0] == "-":
        value = -value
    bits = _INT_BITS[kind]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return value


def parse_bytes(text: str) -> int:
    """A size as `docker run --memory` reads it: a number and b, k, m, g, t or p (kb, kib … too), powers of 1024."""
    split = len(text)
    while split and text[split - 1] not in "0123456789. ":
        split -= 1
    number, unit = text[:split].removesuffix(" "), text[split:].lower()
    try:
        if not number or number != number.strip() or "_" in number:
            raise ValueError
        value = float(number)
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
    if value < 0:
        raise ValueError(f"invalid size: '{text}'")
    short = unit
    if unit in ("b",):
        short = ""
    elif unit.endswith("ib"):
        short = unit[:-2]
    elif unit.endswith("b"):
        short = unit[:-1]
    if short not in _BYTE_POWERS or (unit.endswith("ib") and not short):
        raise ValueError(f"invalid suffix: '{unit}'")
    return int(value * 1024 ** _BYTE_POWERS[short])


def parse_swap_bytes(text: str) -> int:
    """A size, or -1 for no limit."""
    return -1 if text == "-1" else parse_bytes(text)


def parse_nano_cpus(text: str) -> int:
    """`--cpus`: a decimal number or a fraction, in billionths of a CPU."""
    from fractions import Fraction

    try:
        value = Fraction(text) * 1_000_000_000
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if value.denominator != 1:
        raise ValueError("value is too precise")
    return value.numerator


_DURATION_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_duration_ns(text: str) -> int:
    """A Go duration ("1h2m3.5s") in nanoseconds."""
    rest = text
    negative = rest.startswith("-")
    if rest[:1] in ("+", "-"):
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        at = 0
        while at < len(rest) and rest[at] in "0123456789.":
            at += 1
        number, rest = rest[:at], rest[at:]
        if not number.replace(".", "", 1).isdecimal():
            raise ValueError(f'time: invalid duration "{text}"')
        at = 0
        while at < len(rest) and rest[at] not in "0123456789.":
            at += 1
        unit, rest = rest[:at], rest[at:]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        whole, _, fraction = number.partition(".")
        scale = _DURATION_UNITS[unit]
        total += int(whole or "0") * scale + int((fraction or "0")[:12]) * scale // 10 ** len((fraction or "0")[:12])
    if total >= 1 << 63:
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if negative else total


def split_csv(text: str) -> list[str]:
    """One line of comma separated fields, quoted as in RFC 4180."""
    if '"' not in text:
        return text.split(",") if text else []
    import csv

    rows = list(csv.reader([text], strict=True))
    return rows[0] if rows else []


def parse_filter(text: str) -> str:
    if not text:
        return text
    if "=" not in text:
        raise ValueError("bad format of filter (expected name=value)")
    return text


def parse_map_item(text: str) -> str:
    return text


def parse_ip(text: str) -> str:
    import _socket

    try:
        _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except OSError:
        raise ValueError(f'failed to parse IP: "{text}"') from None
    return text
