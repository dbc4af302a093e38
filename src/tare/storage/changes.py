"""What a snapshot's upper directory changes, as `docker diff` lists it.

Must never read the lower layers but at the names that the upper directory holds: cost follows the changes.
"""

from __future__ import annotations

import os
import stat
from typing import Literal, NamedTuple

import msgspec

from tare.storage.merged import Stack, is_opaque, is_whiteout, lookup
from tare.storage.tree_reader import open_directory_beneath

Kind = Literal["A", "C", "D"]


class Change(msgspec.Struct, frozen=True, order=True):
    """path is absolute in the container; names that aren't UTF-8 keep their bytes as surrogates (os.fsdecode)."""

    path: str
    kind: Kind


def changes(stack: Stack) -> list[Change]:
    """Added, changed and deleted paths of stack's topmost layer against those below it, sorted by path.

    A directory above a change counts as changed; a deleted or replaced tree is one line.
    """
    found: dict[bytes, Kind] = {}
    waiting = [_Directory(b"", stack.everything[1:], False)]
    while waiting:
        directory = waiting.pop()
        try:
            descriptor = open_directory_beneath(stack.root_fds[0], directory.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed or replaced meanwhile
        try:
            if directory.path and is_opaque(descriptor):
                directory = directory._replace(opaque=True)
            waiting.extend(_directory(stack, directory, descriptor, found))
        finally:
            os.close(descriptor)
    # Docker sorts by the path's text with its leading slash.
    return sorted(Change("/" + os.fsdecode(path), kind) for path, kind in found.items())


class _Directory(NamedTuple):
    """A directory of the upper layer. layers: those below that have one there too, none if it is new.

    opaque: it, or one above it, hides what they have in it.
    """

    path: bytes
    layers: tuple[int, ...]
    opaque: bool


def _directory(stack: Stack, directory: _Directory, descriptor: int, found: dict[bytes, Kind]) -> list[_Directory]:
    """Records the changes of one directory's own entries; returns the directories in it."""
    below = []
    names = {os.fsencode(name) for name in os.listdir(descriptor)}
    with stack.opened(directory.path, directory.layers) as opened:
        for name in names:
            path = directory.path + b"/" + name if directory.path else name
            try:
                status = os.lstat(name, dir_fd=descriptor)
            except FileNotFoundError:
                continue
            before = lookup(name, opened)
            kind = _kind(before, status)
            if kind is not None:
                _record(found, path, kind)
            if stat.S_ISDIR(status.st_mode):
                layers: tuple[int, ...] = ()
                if before and stat.S_ISDIR(before[1].st_mode):
                    layers = stack.merged_from(path, directory.layers[directory.layers.index(before[0]) :])
                below.append(_Directory(path, layers, directory.opaque))
    if directory.opaque:
        for name, _, _ in stack.entries(directory.path, directory.layers):
            if name not in names:
                _record(found, directory.path + b"/" + name, "D")
    return below


def _kind(before: tuple[int, os.stat_result] | None, status: os.stat_result) -> Kind | None:
    if is_whiteout(status):
        return "D" if before else None
    if before is None:
        return "A"
    return "C" if _differs(before[1], status) else None


def _differs(old: os.stat_result, new: os.stat_result) -> bool:
    """Docker's measure: owner, mode and device; size and time too, but not of directories."""
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    return not stat.S_ISDIR(new.st_mode) and (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns)


def _record(found: dict[bytes, Kind], path: bytes, kind: Kind) -> None:
    found[path] = kind
    parent = path.rpartition(b"/")[0]
    while parent and parent not in found:
        found[parent] = "C"
        parent = parent.rpartition(b"/")[0]
