"""What differs between two merged views: paths, kinds, sizes, modes, owners, attributes and contents.

Must never read what both views have from the same layers: cost follows the layers that they don't share, and the
differences. Must never follow a symbolic link; a running container may change its view meanwhile.

Two views share the lowest layers that a directory is merged from in both. What stands only in those is the same; so
only names in the layers above are looked at, and a directory that comes from the same layers in both isn't entered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from tare import errors
from tare.storage.merged import Stack, is_whiteout, lookup
from tare.storage.tar_stream import content, open_regular
from tare.storage.text_patch import MAX_PATCH_BYTES, Side, patch
from tare.storage.tree_reader import read_xattrs
from tare.storage.tree_writer import without_engine_xattrs

Kind = Literal["A", "C", "D"]
MAX_DIFFERENCES = 1_000_000
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at a path. target: of a symbolic link; device: (major, minor) of a device node."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str = ""
    device: tuple[int, int] | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """path is absolute; names that aren't UTF-8 keep their bytes as surrogates (os.fsdecode).

    what: of a changed entry, which of type, mode, owner, device, target, attributes, content. patch: a unified diff
    if that was asked for and the file is text; binary: it isn't, or is too large.
    """

    path: str
    kind: Kind
    old: Facts | None
    new: Facts | None
    what: tuple[str, ...] = ()
    patch: str = ""
    binary: bool = False


def compare(old: Stack, new: Stack, *, patches: bool = False) -> list[Difference]:
    """From the old view to the new one, sorted by path."""
    comparing = _Comparing(old, new, patches)
    waiting = [_Pair(b"", old.everything, new.everything)]
    while waiting:
        waiting += comparing.directory(waiting.pop())
    return sorted(comparing.found, key=lambda difference: difference.path)


class _Pair(NamedTuple):
    """A directory and the layers that it is merged from on each side; none where the side doesn't have it."""

    path: bytes
    old: tuple[int, ...]
    new: tuple[int, ...]


class _Place(NamedTuple):
    """An entry on one side: the open directory that has it, from which layer."""

    descriptor: int
    layer: int
    status: os.stat_result


class _Comparing:
    def __init__(self, old: Stack, new: Stack, patches: bool) -> None:
        self._old = old
        self._new = new
        self._patches = patches
        self._patch_bytes = 0
        self._old_keys = [_key(descriptor) for descriptor in old.root_fds]
        self._new_keys = [_key(descriptor) for descriptor in new.root_fds]
        self.found: list[Difference] = []

    def directory(self, pair: _Pair) -> list[_Pair]:
        """Records what differs in one directory; returns the directories in it that may differ."""
        shared = self._shared(pair)
        below = []
        with self._old.opened(pair.path, pair.old) as old_open, self._new.opened(pair.path, pair.new) as new_open:
            own_old = set(pair.old[: len(pair.old) - shared])
            own_new = set(pair.new[: len(pair.new) - shared])
            names = _names(old_open, own_old) | _names(new_open, own_new)
            for name in names:
                path = pair.path + b"/" + name if pair.path else name
                try:
                    old, new = _place(name, old_open), _place(name, new_open)
                    if old and new and self._old_keys[old.layer] == self._new_keys[new.layer]:
                        if not stat.S_ISDIR(new.status.st_mode):
                            continue
                    elif old or new:
                        self._entry(path, name, old, new)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # removed or replaced meanwhile
                inner = self._pair(path, pair, old, new)
                if inner is not None:
                    below.append(inner)
        return below

    def _shared(self, pair: _Pair) -> int:
        """How many of the lowest layers are the same on both sides."""
        count = 0
        for old, new in zip(reversed(pair.old), reversed(pair.new), strict=False):
            if self._old_keys[old] != self._new_keys[new]:
                break
            count += 1
        return count

    def _pair(self, path: bytes, parent: _Pair, old: _Place | None, new: _Place | None) -> _Pair | None:
        old_layers = _merged(self._old, path, parent.old, old)
        new_layers = _merged(self._new, path, parent.new, new)
        same = [self._old_keys[layer] for layer in old_layers] == [self._new_keys[layer] for layer in new_layers]
        return None if same else _Pair(path, old_layers, new_layers)

    def _entry(self, path: bytes, name: bytes, old: _Place | None, new: _Place | None) -> None:
        what = _what(name, old, new) if old and new else ()
        if old and new and not what:
            return
        if len(self.found) >= MAX_DIFFERENCES:
            raise errors.ResourceExhausted(f"more than {MAX_DIFFERENCES} differences")
        text, binary = self._patch(path, name, old, new, what) if self._patches else ("", False)
        self.found.append(
            Difference(
                path="/" + os.fsdecode(path),
                kind="C" if old and new else "A" if new else "D",
                old=_facts(name, old) if old else None,
                new=_facts(name, new) if new else None,
                what=what,
                patch=text,
                binary=binary,
            )
        )

    def _patch(
        self, path: bytes, name: bytes, old: _Place | None, new: _Place | None, what: tuple[str, ...]
    ) -> tuple[str, bool]:
        if old and new and "content" not in what and "type" not in what:
            return "", False
        sides = [_side(name, place) for place in (old, new)]
        if all(side is None for side in sides):
            return "", False
        if self._patch_bytes > MAX_PATCH_BYTES:
            return "", True
        text = patch(os.fsdecode(path), sides[0], sides[1])
        self._patch_bytes += len(text or "")
        return text or "", text is None


def _key(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _names(opened: list[tuple[int, int]], layers: set[int]) -> set[bytes]:
    return {os.fsencode(name) for layer, descriptor in opened if layer in layers for name in os.listdir(descriptor)}


def _place(name: bytes, opened: list[tuple[int, int]]) -> _Place | None:
    found = lookup(name, opened)
    if found is None or is_whiteout(found[1]):
        return None
    descriptor = next(descriptor for layer, descriptor in opened if layer == found[0])
    return _Place(descriptor, found[0], found[1])


def _merged(stack: Stack, path: bytes, layers: tuple[int, ...], place: _Place | None) -> tuple[int, ...]:
    if place is None or not stat.S_ISDIR(place.status.st_mode):
        return ()
    return stack.merged_from(path, layers[layers.index(place.layer) :])


def _what(name: bytes, old: _Place, new: _Place) -> tuple[str, ...]:
    """Which properties of an entry differ. Times alone don't make a difference."""
    before, after = old.status, new.status
    if stat.S_IFMT(before.st_mode) != stat.S_IFMT(after.st_mode):
        return ("type",)
    found = []
    if stat.S_IMODE(before.st_mode) != stat.S_IMODE(after.st_mode):
        found.append("mode")
    if (before.st_uid, before.st_gid) != (after.st_uid, after.st_gid):
        found.append("owner")
    if before.st_rdev != after.st_rdev:
        found.append("device")
    if stat.S_ISLNK(after.st_mode) and _target(name, old) != _target(name, new):
        found.append("target")
    if _xattrs(name, old) != _xattrs(name, new):
        found.append("attributes")
    if stat.S_ISREG(after.st_mode) and not _same_content(name, old, new):
        found.append("content")
    return tuple(found)


def _xattrs(name: bytes, place: _Place) -> dict[bytes, bytes]:
    return without_engine_xattrs(read_xattrs(place.descriptor, name))


def _target(name: bytes, place: _Place) -> bytes:
    return os.readlink(name, dir_fd=place.descriptor)


def _same_content(name: bytes, old: _Place, new: _Place) -> bool:
    if old.status.st_size != new.status.st_size:
        return False
    first, second = open_regular(old.descriptor, name), -1
    try:
        second = open_regular(new.descriptor, name)
        pairs = zip(_even(first, old.status.st_size), _even(second, new.status.st_size), strict=True)
        return all(one == two for one, two in pairs)
    finally:
        os.close(first)
        if second >= 0:
            os.close(second)


def _even(descriptor: int, size: int) -> Iterator[bytes]:
    """The content in pieces whose bounds don't depend on where the holes are."""
    pending = bytearray()
    for _, chunk in content(descriptor, size):
        pending += chunk
        while len(pending) >= 1 << 20:
            yield bytes(pending[: 1 << 20])
            del pending[: 1 << 20]
    yield bytes(pending)


def _facts(name: bytes, place: _Place) -> Facts:
    status = place.status
    kind = stat.S_IFMT(status.st_mode)
    device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    return Facts(
        type=_TYPES[kind],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == stat.S_IFREG else 0,
        target=os.fsdecode(_target(name, place)) if kind == stat.S_IFLNK else "",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if device else None,
    )


def _side(name: bytes, place: _Place | None) -> Side | None:
    """A regular file's content, as much of it as a patch may need."""
    if place is None or not stat.S_ISREG(place.status.st_mode):
        return None
    descriptor = open_regular(place.descriptor, name)
    try:
        return Side.read(descriptor)
    finally:
        os.close(descriptor)
