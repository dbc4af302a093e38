"""The fields of tar headers: ustar, GNU, STAR and PAX. Pure; names are bytes throughout.

Must never trust a number or length it reads: what doesn't parse is `archive/tar: invalid tar header`.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from zlib import adler32

import msgspec

from tare import errors

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

REGULAR, HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
HEADER_ONLY = frozenset((HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO))

# name mode uid gid size mtime checksum type linkname magic+version uname gname major minor prefix(+STAR/GNU tail)
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")

XATTR_PREFIX = b"SCHILY.xattr."


class InvalidHeader(errors.InvalidArgument):
    """Bytes that aren't a tar header, or one that contradicts itself."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("archive/tar: invalid tar header" + (f": {detail}" if detail else ""))


class Entry(msgspec.Struct):
    """One member of an archive, all its extension headers applied.

    size: apparent size of a regular file. packed_bytes: how many payload bytes follow in the stream.
    extents: (offset, length) of the data of a sparse file, None if it isn't sparse.
    """

    name: bytes
    kind: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    packed_bytes: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = {}
    extents: list[tuple[int, int]] | None = None


def shown(name: bytes) -> str:
    """A name for an error text, cut where it is absurdly long."""
    text = name[:256].decode("utf-8", "backslashreplace")
    return text + "…" if len(name) > 256 else text


@lru_cache(4096)  # owners, modes and devices repeat from entry to entry
def parse_number(field: bytes) -> int:
    """An octal field, or base-256 when its first bit is set (GNU)."""
    if field and field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8
        if field[0] & 0x40:  # two's complement
            return value - (1 << bits)
        return value & ((1 << (bits - 1)) - 1)
    text = field.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    try:
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        raise InvalidHeader() from None


def check_sum(header: bytes) -> None:
    """Raises unless the header's checksum, unsigned or (old tars) signed, is right."""
    stored = parse_number(header[148:156])
    # The low half of Adler-32 is 1 + the sum of the bytes, modulo 65521, which 256 bytes don't reach: far quicker.
    total = (adler32(header[:256]) & 0xFFFF) + (adler32(header[256:]) & 0xFFFF) - 2
    unsigned = total - sum(header[148:156]) + 256
    if stored == unsigned:
        return
    negative = sum(1 for byte in header[:148] + header[156:] if byte & 0x80)
    if stored != unsigned - 256 * negative:
        raise InvalidHeader()


def parse_header(header: bytes) -> tuple[Entry, bool]:
    """One 512-byte header as an Entry, with whether it is in GNU format. Extension headers come as their type."""
    check_sum(header)
    (
        name, mode, uid, gid, size, mtime, _sum, kind, linkname, magic, _uname, _gname, major, minor, prefix, tail,
    ) = _FIELDS.unpack(header)  # fmt: skip
    name = name.partition(b"\0")[0]
    gnu = magic == b"ustar  \0"
    if magic[:6] == b"ustar\0":
        if tail[-4:] == b"tar\0":  # STAR keeps times in the prefix's end
            prefix = prefix[:131]
        prefix = prefix.partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    size_bytes = parse_number(size)
    if size_bytes < 0:
        raise InvalidHeader()
    devices = magic[:5] == b"ustar" and kind in (CHAR, BLOCK_DEVICE)
    entry = Entry(
        name,
        kind,
        parse_number(mode) & 0o7777,
        parse_number(uid),
        parse_number(gid),
        size_bytes,
        size_bytes,
        parse_number(mtime) * 1_000_000_000,
        linkname.partition(b"\0")[0],
        parse_number(major) if devices else 0,
        parse_number(minor) if devices else 0,
    )
    return entry, gnu


def parse_pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """The `length key=value\\n` records of a PAX header (POSIX pax, "pax Extended Header"), in order."""
    records = []
    while data:
        digits, blank, _ = data[:21].partition(b" ")
        if not blank or not digits.isdigit():
            raise InvalidHeader("malformed PAX record")
        length = int(digits)
        record = data[len(digits) + 1 : length]
        if length <= len(digits) + 2 or length > len(data) or record[-1:] != b"\n":
            raise InvalidHeader("malformed PAX record")
        key, equals, value = record[:-1].partition(b"=")
        if not equals or not key or b"\0" in key or (b"\0" in value and key in _NO_NUL):
            raise InvalidHeader("malformed PAX record")
        records.append((key, value))
        data = data[length:]
    return records


_NO_NUL = frozenset((b"path", b"linkpath", b"uname", b"gname"))


def parse_pax_time(value: bytes) -> int:
    """Seconds with a fraction, perhaps negative, as nanoseconds; digits beyond the ninth are cut."""
    negative = value.startswith(b"-")
    whole, _, fraction = value.lstrip(b"-").partition(b".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()) or len(whole) > 19:
        raise InvalidHeader("malformed PAX time")
    ns = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -ns if negative else ns


def parse_decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise InvalidHeader("malformed number")
    return int(value)


def check_extents(extents: list[tuple[int, int]], size: int, packed_bytes: int) -> None:
    """A sparse map must be in order, free of overlap, inside the file, and account for every payload byte."""
    end = total = 0
    for offset, length in extents:
        if offset < end or length < 0:
            raise InvalidHeader("malformed sparse map")
        end = offset + length
        total += length
    if end > size or total != packed_bytes:
        raise InvalidHeader("malformed sparse map")
