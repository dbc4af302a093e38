"""Whether a layer's tree is what its archive says: every entry there with its kind, owner, mode, size, time and target.

Must never change anything, nor follow a link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from tare.storage import tar_format as fmt
from tare.storage.extract import OPAQUE, WHITEOUT
from tare.storage.limits import Limits
from tare.storage.tar_format import Entry, shown
from tare.storage.tar_reader import TarReader
from tare.storage.tree_reader import open_directory_beneath, read_xattrs
from tare.storage.tree_writer import clean_path

_KINDS = {
    fmt.REGULAR: stat.S_IFREG, fmt.DIRECTORY: stat.S_IFDIR, fmt.SYMLINK: stat.S_IFLNK, fmt.FIFO: stat.S_IFIFO,
    fmt.CHAR: stat.S_IFCHR, fmt.BLOCK_DEVICE: stat.S_IFBLK,
}  # fmt: skip
_WHITEOUT = b"whiteout"
_MOST = 5
# Times that every file system keeps.
_TIMES_NS = range(2**31 * 10**9)


def expected_entries(chunks: Iterator[bytes], limits: Limits) -> dict[bytes, Entry]:
    """What an archive leaves in a tree, by path. Reads it to its end."""
    reader = TarReader(chunks, limits)
    found: dict[bytes, Entry] = {}
    while entry := reader.next_entry():
        path = clean_path(entry.name)
        last = path.rpartition(b"/")[2]
        if last.startswith(WHITEOUT):
            if last == OPAQUE or last.startswith(b".wh..wh."):
                continue
            path = path[: len(path) - len(last)] + last[len(WHITEOUT) :]
            entry.kind = _WHITEOUT
        before = found.get(path)
        if before is not None and not (before.kind == entry.kind == fmt.DIRECTORY):
            if before.kind == fmt.DIRECTORY:
                for below in [other for other in found if other.startswith(path + b"/")]:
                    del found[below]
            del found[path]
        found[path] = entry
    reader.finish()
    return found


def differences(tree_fd: int, expected: dict[bytes, Entry]) -> list[str]:
    """What is wrong with a tree, the first few things of it; [] if nothing is."""
    wrong: list[str] = []
    for path, entry in expected.items():
        if path and (text := _compare(tree_fd, path, entry, expected)):
            wrong.append(f"{shown(path)}: {text}")
            if len(wrong) >= _MOST:
                return wrong
    return wrong + _strangers(tree_fd, expected, _MOST - len(wrong))


def _compare(tree_fd: int, path: bytes, entry: Entry, expected: dict[bytes, Entry]) -> str:
    try:
        status = _status(tree_fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if entry.kind == fmt.HARD_LINK:
        return _compare_link(tree_fd, entry, status, expected)
    if entry.kind == _WHITEOUT:
        return "" if stat.S_ISCHR(status.st_mode) and not status.st_rdev else "is not a whiteout"
    kind = _KINDS.get(entry.kind, stat.S_IFREG)
    if stat.S_IFMT(status.st_mode) != kind:
        return "is of another kind"
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        return f"belongs to {status.st_uid}:{status.st_gid}, not {entry.uid}:{entry.gid}"
    if kind != stat.S_IFLNK and stat.S_IMODE(status.st_mode) != entry.mode:
        return f"has the mode {stat.S_IMODE(status.st_mode):o}, not {entry.mode:o}"
    if kind == stat.S_IFREG and status.st_size != entry.size:
        return f"has {status.st_size} bytes, not {entry.size}"
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and status.st_rdev != os.makedev(entry.major, entry.minor):
        return "is another device"
    if kind != stat.S_IFDIR and entry.mtime_ns in _TIMES_NS and abs(status.st_mtime_ns - entry.mtime_ns) >= 10**9:
        return "has another time"
    return _compare_attributes(tree_fd, path, entry, kind)


def _compare_link(tree_fd: int, entry: Entry, status: os.stat_result, expected: dict[bytes, Entry]) -> str:
    target = clean_path(entry.linkname)
    if target not in expected:
        return ""  # replaced later in the archive
    try:
        other = _status(tree_fd, target)
    except (FileNotFoundError, NotADirectoryError):
        return f"is a link to {shown(target)}, which is missing"
    if expected[target].kind != fmt.DIRECTORY and other.st_ino != status.st_ino and status.st_nlink < 2:
        return f"is not a link to {shown(target)}"
    return ""


def _compare_attributes(tree_fd: int, path: bytes, entry: Entry, kind: int) -> str:
    head, _, last = path.rpartition(b"/")
    if kind == stat.S_IFLNK or entry.xattrs:
        directory = open_directory_beneath(tree_fd, head)
        try:
            if kind == stat.S_IFLNK and os.readlink(last, dir_fd=directory) != entry.linkname:
                return "leads elsewhere"
            if entry.xattrs:
                there = read_xattrs(directory, last)
                for name, value in entry.xattrs.items():
                    if name in there and there[name] != value:
                        return f"has another value of {shown(name)}"
                if b"security.capability" in entry.xattrs and b"security.capability" not in there:
                    return "has lost its capabilities"
        finally:
            os.close(directory)
    return ""


def _status(tree_fd: int, path: bytes) -> os.stat_result:
    head, _, last = path.rpartition(b"/")
    directory = open_directory_beneath(tree_fd, head)
    try:
        return os.lstat(last, dir_fd=directory)
    finally:
        os.close(directory)


def _strangers(tree_fd: int, expected: dict[bytes, Entry], most: int) -> list[str]:
    """What is in the tree but not in the archive, which leaves out only parents."""
    parents: set[bytes] = set()
    for path in expected:
        while path := path.rpartition(b"/")[0]:
            if path in parents:
                break
            parents.add(path)
    wrong: list[str] = []
    for path in _walk(tree_fd):
        if path not in expected and path not in parents:
            if len(wrong) >= most:
                break
            wrong.append(f"{shown(path)}: is not in its archive")
    return wrong


def _walk(tree_fd: int) -> Iterable[bytes]:
    waiting = [b""]
    while waiting:
        at = waiting.pop()
        directory = open_directory_beneath(tree_fd, at)
        try:
            names = [os.fsencode(name) for name in os.listdir(directory)]
            for name in names:
                path = at + b"/" + name if at else name
                yield path
                if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
                    waiting.append(path)
        finally:
            os.close(directory)
