"""Tar headers for entries: ustar where it suffices, PAX records for what it can't say. Pure.

Must never depend on the machine, the user or the clock: equal entries give equal bytes.
"""

from __future__ import annotations

import os
import stat

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


def _octal(value: int, width: int) -> bytes:
    limit = (1 << 3 * (width - 1)) - 1
    return b"%0*o\0" % (width - 1, min(max(value, 0), limit))


def _ustar(entry: Entry) -> bytes:
    prefix, name = _split(entry.name) or (b"", entry.name[:100])
    head = b"".join(
        (
            name.ljust(100, b"\0"),
            _octal(entry.mode, 8),
            _octal(entry.uid, 8),
            _octal(entry.gid, 8),
            _octal(entry.size, 12),
            _octal(entry.mtime_ns // 1_000_000_000, 12),
        )
    )
    tail = b"".join(
        (
            entry.kind,
            entry.linkname[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(entry.major, 8),
            _octal(entry.minor, 8),
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    total = sum(head) + sum(tail) + 8 * 32
    return head + b"%06o\0 " % total + tail
