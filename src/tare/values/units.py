"""Sizes in bytes, as Docker's users write and read them. Pure; the CLI imports it."""

from __future__ import annotations

from tare.errors import InvalidArgument

_BINARY = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def parse_bytes(text: str) -> int:
    """A size such as `256m`, `1.5g`, `64KiB` or `1024` in bytes; units are powers of 1024, as go-units' RAMInBytes."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text[len(number) :].strip().lower().removesuffix("b").removesuffix("i")
    if unit not in _BINARY or not number or not set(number) <= set("0123456789."):
        raise InvalidArgument(f"invalid size: '{text}'")
    try:
        return int(float(number) * _BINARY[unit])
    except ValueError as error:
        raise InvalidArgument(f"invalid size: '{text}'") from error


def _format(size: float, units: tuple[str, ...], step: float, digits: int) -> str:
    index = 0
    while size >= step and index < len(units) - 1:
        size /= step
        index += 1
    return f"{size:.{digits}g}".replace("e+03", "000") + units[index]


def format_bytes(size_bytes: float, digits: int = 3) -> str:
    """A size in powers of 1000 with some significant digits: `12.3MB` (go-units' HumanSize has 4, `docker ps -s` 3)."""
    return _format(size_bytes, _DECIMAL_UNITS, 1000.0, digits)


def format_bytes_binary(size_bytes: float, digits: int = 4) -> str:
    """A size in powers of 1024 with 4 significant digits: `1.944GiB`."""
    return _format(size_bytes, _BINARY_UNITS, 1024.0, digits)
