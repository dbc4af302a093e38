"""What a snapshot's upper directory changes, as `docker diff` lists it.

Must never read the lower layers but at the names that the upper directory holds: cost follows the changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Literal

import msgspec

from tare.storage.merged import Stack, is_opaque, is_whiteout
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
    lower = stack.everything[1:]
    waiting: list[tuple[bytes, tuple[int, ...], bool]] = [(b"", lower, False)]
    while waiting:
        path, layers, added = waiting.pop()
        descriptor = _open(stack, path)
        if descriptor is None:
            continue
        try:
            names = sorted(os.fsencode(name) for name in os.listdir(descriptor))
            for name in names:
                whole = path + b"/" + name if path else name
                try:
                    status = os.lstat(name, dir_fd=descriptor)
                except FileNotFoundError:
                    continue
                kind, below = _compare(stack, whole, status, layers)
                if kind is not None and not (kind == "D" and added):
                    _record(found, whole, kind)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append((whole, below, kind == "A"))
            if not added and path and is_opaque(descriptor):
                for gone in _hidden(stack, path, set(names)):
                    _record(found, gone, "D")
        finally:
            os.close(descriptor)
    # Docker sorts by the path's text with its leading slash.
    return sorted(Change("/" + os.fsdecode(path), kind) for path, kind in found.items())


def _open(stack: Stack, path: bytes) -> int | None:
    try:
        return open_directory_beneath(stack.root_fds[0], path)
    except (FileNotFoundError, NotADirectoryError):
        return None  # removed or replaced meanwhile


def _compare(
    stack: Stack, path: bytes, status: os.stat_result, layers: tuple[int, ...]
) -> tuple[Kind | None, tuple[int, ...]]:
    """The kind of change at `path`, and the lower layers that its directory is merged from."""
    before = stack.lookup(path, layers)
    if is_whiteout(status):
        return ("D" if before else None), ()
    if before is None:
        return "A", ()
    layer, old = before
    below: tuple[int, ...] = ()
    if stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(old.st_mode):
        below = stack.merged_from(path, layers[layers.index(layer) :])
    return ("C" if _differs(old, status) else None), below


def _differs(old: os.stat_result, new: os.stat_result) -> bool:
    """Docker's measure: owner, mode and device; size and time too, but not of directories."""
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return True
    return not stat.S_ISDIR(new.st_mode) and (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns)


def _hidden(stack: Stack, path: bytes, present: set[bytes]) -> Iterator[bytes]:
    """What an opaque directory hides of the layers below and doesn't bring back."""
    lower = stack.everything[1:]
    for depth in range(len(parts := path.split(b"/"))):
        lower = stack.merged_from(b"/".join(parts[: depth + 1]), lower)
    for name, _, _ in stack.entries(path, lower):
        if name not in present:
            yield path + b"/" + name


def _record(found: dict[bytes, Kind], path: bytes, kind: Kind) -> None:
    found[path] = kind
    parent = path.rpartition(b"/")[0]
    while parent and parent not in found:
        found[parent] = "C"
        parent = parent.rpartition(b"/")[0]
