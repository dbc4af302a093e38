"""Tar headers for entries: ustar where it suffices, PAX records for what it can't say. Pure.

Must never depend on the machine, the user or the clock: equal entries give equal bytes.
"""

from __future__ import annotations

import os
import stat
import struct
from functools import lru_cache
from zlib import adler32

from tare.storage import tar_format as fmt
from tare.storage.tar_format import BLOCK, Entry

END = bytes(2 * BLOCK)
_MAX_OCTAL_12 = 0o77777777777
_MAX_OCTAL_8 = 0o7777777


def entry_of(
    path: bytes, status: os.stat_result, linkname: bytes = b"", xattrs: dict[bytes, bytes] | None = None
) -> Entry:
    """The entry for something found in a file system; sockets have none and must be skipped before."""
    kind = fmt_kind(status.st_mode)
    size = status.st_size if kind == fmt.REGULAR else 0
    device = status.st_rdev if kind in (fmt.CHAR, fmt.BLOCK_DEVICE) else 0
    return Entry(
        name=path + b"/" if kind == fmt.DIRECTORY else path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=size,
        packed_bytes=size,
        mtime_ns=status.st_mtime_ns,
        linkname=linkname,
        major=os.major(device),
        minor=os.minor(device),
        xattrs=xattrs or {},
    )


_KINDS = {
    stat.S_IFREG: fmt.REGULAR,
    stat.S_IFDIR: fmt.DIRECTORY,
    stat.S_IFLNK: fmt.SYMLINK,
    stat.S_IFCHR: fmt.CHAR,
    stat.S_IFBLK: fmt.BLOCK_DEVICE,
    stat.S_IFIFO: fmt.FIFO,
}


def fmt_kind(mode: int) -> bytes:
    return _KINDS[stat.S_IFMT(mode)]


def format_entry(entry: Entry) -> bytes:
    """The header blocks of an entry; its payload and padding follow."""
    records = _pax_records(entry)
    if not records:
        return _ustar(entry)
    data = b"".join(_record(key, value) for key, value in records)
    extension = Entry(
        name=b"PaxHeaders/" + entry.name.rstrip(b"/").rpartition(b"/")[2][:80],
        kind=b"x",
        mode=0o644,
        size=len(data),
    )
    return _ustar(extension) + data + padding(len(data)) + _ustar(entry)


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _pax_records(entry: Entry) -> list[tuple[bytes, bytes]]:
    records = []
    raw = False
    if _split(entry.name) is None:
        records.append((b"path", entry.name))
        raw = raw or not _is_utf8(entry.name)
    if len(entry.linkname) > 100:
        records.append((b"linkpath", entry.linkname))
        raw = raw or not _is_utf8(entry.linkname)
    if raw:
        records.insert(0, (b"hdrcharset", b"BINARY"))
    if entry.mtime_ns % 1_000_000_000 or not 0 <= entry.mtime_ns // 1_000_000_000 <= _MAX_OCTAL_12:
        records.append((b"mtime", _time(entry.mtime_ns)))
    if entry.uid > _MAX_OCTAL_8:
        records.append((b"uid", b"%d" % entry.uid))
    if entry.gid > _MAX_OCTAL_8:
        records.append((b"gid", b"%d" % entry.gid))
    if entry.size > _MAX_OCTAL_12:
        records.append((b"size", b"%d" % entry.size))
    records.extend((fmt.XATTR_PREFIX + key, value) for key, value in sorted(entry.xattrs.items()))
    return records


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _time(ns: int) -> bytes:
    sign = b"-" if ns < 0 else b""
    seconds, fraction = divmod(abs(ns), 1_000_000_000)
    text = sign + b"%d" % seconds
    return text + (b".%09d" % fraction).rstrip(b"0") if fraction else text


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where length counts its own digits."""
    body = len(key) + len(value) + 3
    length = body + len(str(body))
    if len(str(length)) > len(str(body)):
        length = body + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) as ustar keeps them, None if it can't."""
    if len(name) <= 100:
        return b"", name
    if len(name) > 256:
        return None
    cut = name.find(b"/", len(name) - 101)
    if cut <= 0 or cut > 155 or cut == len(name) - 1:
        return None
    return name[:cut], name[cut + 1 :]


# name mode uid gid size mtime checksum type linkname magic+version (uname gname) major minor prefix
_USTAR = struct.Struct("100s8s8s8s12s12s8s1s100s8s64x8s8s155s12x")
_BLANKS = b" " * 8


@lru_cache(1024)  # owners, modes and devices repeat from entry to entry
def _octal(value: int) -> bytes:
    return b"%07o\0" % min(max(value, 0), _MAX_OCTAL_8)


def _long_octal(value: int) -> bytes:
    return b"%011o\0" % min(max(value, 0), _MAX_OCTAL_12)


def _ustar(entry: Entry) -> bytes:
    prefix, name = _split(entry.name) or (b"", entry.name[:100])
    header = _USTAR.pack(
        name,
        _octal(entry.mode),
        _octal(entry.uid),
        _octal(entry.gid),
        _long_octal(entry.size),
        _long_octal(entry.mtime_ns // 1_000_000_000),
        _BLANKS,
        entry.kind,
        entry.linkname,
        b"ustar\x0000",
        _octal(entry.major),
        _octal(entry.minor),
        prefix,
    )
    # The low half of Adler-32 is 1 + the sum of the bytes, modulo 65521, which 256 bytes don't reach: far quicker.
    total = (adler32(header[:256]) & 0xFFFF) + (adler32(header[256:]) & 0xFFFF) - 2
    return b"%b%06o\0 %b" % (header[:148], total, header[156:])
