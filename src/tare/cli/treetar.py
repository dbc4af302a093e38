"""A local directory as the tar of a root file system, for `import`: everything that a tar can say of it.

Owners by number, modes, times to the nanosecond, extended attributes, hard links, devices, holes. Names are sorted, so
that equal directories give equal bytes. What is mounted below goes along, as with tar. Must never follow a link.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import tarfile

from tare.cli.command import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PIECE = 256 << 10
_SPARSE_BYTES = 1 << 20
"""A file with fewer bytes of holes is written whole."""
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
# Those of another layer's overlay mean nothing here; labels of SELinux are the host's.
_NOT_CARRIED = ("trusted.overlay.", "user.overlay.", "security.selinux")


def pack_tree(directory: str, exclude: Sequence[str] = (), latest_ns: int | None = None) -> Iterator[bytes]:
    """The tar. exclude: patterns of paths or names. latest_ns: later times become this one."""
    root = os.path.abspath(directory)
    links: dict[tuple[int, int], str] = {}
    try:
        yield from _pack_one(root, ".", links, latest_ns)
        waiting = _below(root, "", exclude)
        while waiting:
            path = waiting.pop()
            place = os.path.join(root, path)
            yield from _pack_one(place, path, links, latest_ns)
            if os.path.isdir(place) and not os.path.islink(place):
                waiting += _below(place, f"{path}/", exclude)
    except OSError as error:
        raise CliError(f"{error.filename or directory}: {(error.strerror or str(error)).lower()}") from None
    yield bytes(2 * tarfile.BLOCKSIZE)


def _below(place: str, prefix: str, exclude: Sequence[str]) -> list[str]:
    """What is in a directory, the last name first."""
    found = []
    for name in sorted(os.listdir(place), reverse=True):
        path = prefix + name
        if not any(fnmatch.fnmatchcase(path, one.strip("/")) or fnmatch.fnmatchcase(name, one) for one in exclude):
            found.append(path)
    return found


def _pack_one(place: str, name: str, links: dict[tuple[int, int], str], latest_ns: int | None) -> Iterator[bytes]:
    status = os.lstat(place)
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return  # a socket
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    headers = _time_header(entry, status.st_mtime_ns if latest_ns is None else min(status.st_mtime_ns, latest_ns))
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif kind == tarfile.SYMTYPE:
        entry.linkname = os.readlink(place)
    if kind != tarfile.DIRTYPE and status.st_nlink > 1:
        first = links.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            entry.type, entry.linkname = tarfile.LNKTYPE, first
            yield _head(entry, headers)
            return
    headers |= _xattrs(place)
    if kind == tarfile.REGTYPE:
        yield from _file(place, entry, headers)
    else:
        yield _head(entry, headers)


def _time_header(entry: tarfile.TarInfo, mtime_ns: int) -> dict[str, str]:
    seconds, fraction = divmod(mtime_ns, 10**9)
    entry.mtime = max(seconds, 0)
    if not fraction and seconds >= 0:
        return {}
    sign, (seconds, fraction) = ("-", divmod(-mtime_ns, 10**9)) if mtime_ns < 0 else ("", (seconds, fraction))
    return {"mtime": f"{sign}{seconds}.{fraction:09}"}


def _xattrs(place: str) -> dict[str, str]:
    found = {}
    try:
        for name in sorted(os.listxattr(place, follow_symlinks=False)):
            if not name.startswith(_NOT_CARRIED):
                value = os.getxattr(place, name, follow_symlinks=False)
                found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    except OSError:
        return found  # the file system has none, or they aren't ours to read
    return found


def _head(entry: tarfile.TarInfo, headers: dict[str, str]) -> bytes:
    entry.pax_headers = headers
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _file(place: str, entry: tarfile.TarInfo, headers: dict[str, str]) -> Iterator[bytes]:
    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        extents = _extents(fd, size)
        if size - sum(length for _, length in extents) < _SPARSE_BYTES:
            entry.size = size
            yield _head(entry, headers)
            yield from _content(fd, 0, size)
            yield bytes(-size % tarfile.BLOCKSIZE)
            return
        # GNU tar's sparse format 1.0: the map stands before the data, in whole blocks.
        numbers = [len(extents), *(number for extent in extents for number in extent)]
        table = "".join(f"{number}\n" for number in numbers).encode()
        table += bytes(-len(table) % tarfile.BLOCKSIZE)
        headers |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        headers |= {"GNU.sparse.name": entry.name, "GNU.sparse.realsize": str(size)}
        entry.name = f"GNUSparseFile.0/{os.path.basename(entry.name)}"
        entry.size = len(table) + sum(length for _, length in extents)
        yield _head(entry, headers)
        yield table
        for offset, length in extents:
            yield from _content(fd, offset, length)
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    finally:
        os.close(fd)


def _extents(fd: int, size: int) -> list[tuple[int, int]]:
    """Where data is (offset, length), ending with an empty one at the file's end if there is a hole (lseek(2))."""
    found, at = [], 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < at:
            found.append((start, at - start))
    if not found or sum(found[-1]) < size:
        found.append((size, 0))
    return found


def _content(fd: int, offset: int, length: int) -> Iterator[bytes]:
    """Exactly `length` bytes, though the file may shrink meanwhile."""
    end = offset + length
    while offset < end:
        wanted = min(end - offset, _PIECE)
        piece = os.pread(fd, wanted, offset) or bytes(wanted)
        offset += len(piece)
        yield piece
