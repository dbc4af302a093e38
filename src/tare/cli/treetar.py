"""Local files as a tar: for `import` everything that a tar can say of a root file system, for `cp` what Docker's has.

Owners by number, modes, times to the nanosecond, extended attributes, hard links, devices, holes. Names are sorted, so
that equal directories give equal bytes. What is mounted below goes along, as with tar. Must never follow a link below.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import tarfile

from tare.cli.command import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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


class _Rules:
    """What is packed, and how much is told of it. exact: times to the nanosecond, all attributes, holes."""

    def __init__(self, *, exact: bool, exclude: Sequence[str] = (), latest_ns: int | None = None) -> None:
        self.exact = exact
        self.latest_ns = latest_ns
        self._exclude = [(one.strip("/"), one) for one in exclude]

    def wants(self, path: str, name: str) -> bool:
        return not any(fnmatch.fnmatchcase(path, one) or fnmatch.fnmatchcase(name, own) for one, own in self._exclude)

    def headers(self, entry: tarfile.TarInfo, status: os.stat_result) -> dict[str, str]:
        if not self.exact:
            entry.mtime = int(status.st_mtime)
            return {}
        mtime_ns = status.st_mtime_ns
        return _time_header(entry, mtime_ns if self.latest_ns is None else min(mtime_ns, self.latest_ns))

    def attributes(self, place: str, kind: bytes) -> dict[str, str]:
        if self.exact:
            return _xattrs(place, lambda name: not name.startswith(_NOT_CARRIED))
        return _xattrs(place, lambda name: name == "security.capability") if kind == tarfile.REGTYPE else {}


def pack_tree(directory: str, exclude: Sequence[str] = (), latest_ns: int | None = None) -> Iterator[bytes]:
    """The tar of a directory, exactly. exclude: patterns of paths or names. latest_ns: later times become this one."""
    root = os.path.realpath(directory)
    try:
        yield from _pack(root, ".", "", _Rules(exact=True, exclude=exclude, latest_ns=latest_ns))
    except OSError as error:
        raise CliError(f"{error.filename or directory}: {(error.strerror or str(error)).lower()}") from None


def pack_copy(path: str, name: str) -> Iterator[bytes]:
    """The tar of what is at `path` (a link is not followed), its entries' names beginning with `name`; as Docker's cp.

    Of attributes it has capabilities of files. Raises OSError.
    """
    yield from _pack(path, name, f"{name}/", _Rules(exact=False))


def _pack(root: str, name: str, prefix: str, rules: _Rules) -> Iterator[bytes]:
    """What is at root, as `name`; what is below it, as `prefix` and its path."""
    links: dict[tuple[int, int], str] = {}
    yield from _pack_one(root, name, links, rules)
    waiting = _below(root, "", rules)
    while waiting:
        path = waiting.pop()
        place = os.path.join(root, path)
        yield from _pack_one(place, prefix + path, links, rules)
        waiting += _below(place, f"{path}/", rules)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _below(place: str, prefix: str, rules: _Rules) -> list[str]:
    """What is in a directory, the last name first; nothing for what is none."""
    if os.path.islink(place) or not os.path.isdir(place):
        return []
    return [prefix + name for name in sorted(os.listdir(place), reverse=True) if rules.wants(prefix + name, name)]


def _pack_one(place: str, name: str, links: dict[tuple[int, int], str], rules: _Rules) -> Iterator[bytes]:
    status = os.lstat(place)
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return  # a socket
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    headers = rules.headers(entry, status)
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
    headers |= rules.attributes(place, kind)
    if kind == tarfile.REGTYPE:
        yield from _file(place, entry, headers, rules.exact)
    else:
        yield _head(entry, headers)


def _time_header(entry: tarfile.TarInfo, mtime_ns: int) -> dict[str, str]:
    seconds, fraction = divmod(mtime_ns, 10**9)
    entry.mtime = max(seconds, 0)
    if not fraction and seconds >= 0:
        return {}
    sign, (seconds, fraction) = ("-", divmod(-mtime_ns, 10**9)) if mtime_ns < 0 else ("", (seconds, fraction))
    return {"mtime": f"{sign}{seconds}.{fraction:09}"}


def _xattrs(place: str, wanted: Callable[[str], bool]) -> dict[str, str]:
    found = {}
    try:
        for name in sorted(os.listxattr(place, follow_symlinks=False)):
            if wanted(name):
                value = os.getxattr(place, name, follow_symlinks=False)
                found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    except OSError:
        return found  # the file system has none, or they aren't ours to read
    return found


def _head(entry: tarfile.TarInfo, headers: dict[str, str]) -> bytes:
    entry.pax_headers = headers
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _file(place: str, entry: tarfile.TarInfo, headers: dict[str, str], holes: bool) -> Iterator[bytes]:
    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        extents = _extents(fd, size) if holes else [(0, size)]
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
