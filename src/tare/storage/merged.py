"""The merged view of a stack of layer directories, as overlayfs would show it, walked in user space.

Must never follow a symbolic link or hold more descriptors than the stack has layers; trees may change under the walk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from tare.storage.tree_reader import open_directory, open_directory_beneath

OPAQUE_XATTR = b"trusted.overlay.opaque"


class Found(msgspec.Struct, frozen=True):
    """One entry. directory_fd and name open it while the walk stands on it; layer counts from the top."""

    path: bytes
    name: bytes
    directory_fd: int
    layer: int
    status: os.stat_result


def _always(_: Found) -> bool:
    return True


class Stack:
    """Open layer directories, topmost first."""

    def __init__(self, directories: Sequence[os.PathLike[str] | str]) -> None:
        self._exits = ExitStack()
        self.root_fds: list[int] = []
        with ExitStack() as exits:
            for directory in directories:
                descriptor = open_directory(directory)
                exits.callback(os.close, descriptor)
                self.root_fds.append(descriptor)
            self._exits = exits.pop_all()

    @classmethod
    def of_directory(cls, directory_fd: int) -> Stack:
        """A stack of the one directory that a descriptor of the caller's holds (mounted file systems below included).

        Walk it with whiteouts: what looks like one is somebody's device there.
        """
        stack = cls(())
        stack.root_fds.append(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd))
        stack._exits.callback(os.close, stack.root_fds[0])
        return stack

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def close(self) -> None:
        self._exits.close()

    @property
    def everything(self) -> tuple[int, ...]:
        """The layers that the root directory is merged from: all."""
        return tuple(range(len(self.root_fds)))

    def merged_from(self, path: bytes, layers: Sequence[int]) -> tuple[int, ...]:
        """Of `layers`, those whose directory `path` shows: down to the first that is opaque or isn't a directory."""
        return self._merged(path, layers)[0]

    def is_cut_off(self, path: bytes, layers: Sequence[int]) -> bool:
        """Whether one of `layers` keeps the directory `path` from showing what further layers below would have."""
        return self._merged(path, layers)[1]

    def _merged(self, path: bytes, layers: Sequence[int]) -> tuple[tuple[int, ...], bool]:
        shown: list[int] = []
        for layer in layers:
            try:
                descriptor = open_directory_beneath(self.root_fds[layer], path)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                return tuple(shown), True
            try:
                shown.append(layer)
                if is_opaque(descriptor):
                    return tuple(shown), True
            finally:
                os.close(descriptor)
        return tuple(shown), False

    @contextmanager
    def opened(self, path: bytes, layers: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        """(layer, descriptor) of one directory in each of the layers that has it."""
        found: list[tuple[int, int]] = []
        try:
            for layer in layers:
                try:
                    found.append((layer, open_directory_beneath(self.root_fds[layer], path)))
                except (FileNotFoundError, NotADirectoryError):
                    continue  # removed or replaced meanwhile
            yield found
        finally:
            for _, descriptor in found:
                os.close(descriptor)

    def entries(self, path: bytes, layers: Sequence[int], *, whiteouts: bool = False) -> list[_Entry]:
        """The merged entries of one directory, sorted by name. Whiteouts are applied; shown only if asked for."""
        seen: dict[bytes, _Entry | None] = {}
        with self.opened(path, layers) as opened:
            for layer, descriptor in opened:
                for encoded in os.listdir(descriptor):
                    name = os.fsencode(encoded)
                    if name in seen:
                        continue
                    try:
                        status = os.lstat(name, dir_fd=descriptor)
                    except FileNotFoundError:
                        continue  # removed meanwhile
                    seen[name] = None if is_whiteout(status) and not whiteouts else (name, layer, status)
        return sorted((entry for entry in seen.values() if entry is not None), key=_name)

    def walk(
        self,
        *,
        whiteouts: bool = False,
        enters: Callable[[Found], bool] = _always,
        start: bytes = b"",
        layers: tuple[int, ...] | None = None,
    ) -> Iterator[Found]:
        """Everything below the root, each directory followed by what is in it, names sorted within a directory.

        start: a directory to walk instead of the root, merged from `layers` (as `storage/inside.py` finds them).

        GNU tar relies on that order to set directories' times. A directory is left before one in it is entered and
        opened again afterwards, so that descriptors don't pile up with depth. A directory that `enters` refuses is
        listed, but not what is in it.
        """
        first = self.everything if layers is None else layers
        frames = [_Frame(start, first, self.entries(start, first, whiteouts=whiteouts))]
        while frames:
            frame = frames[-1]
            below = yield from self._walk_some(frame, enters)
            if below is None:
                frames.pop()
            else:
                path, layers = below
                frames.append(_Frame(path, layers, self.entries(path, layers, whiteouts=whiteouts)))

    def _walk_some(
        self, frame: _Frame, enters: Callable[[Found], bool]
    ) -> Generator[Found, None, tuple[bytes, tuple[int, ...]] | None]:
        """Yields a directory's entries up to and with the next subdirectory, which it returns; None at the end."""
        opened: dict[int, int] = {}
        try:
            while frame.left:
                name, layer, status = frame.left.pop()
                if layer not in opened:
                    try:
                        opened[layer] = open_directory_beneath(self.root_fds[layer], frame.path)
                    except (FileNotFoundError, NotADirectoryError):
                        continue  # removed or replaced meanwhile
                path = frame.path + b"/" + name if frame.path else name
                found = Found(path, name, opened[layer], layer, status)
                yield found
                if stat.S_ISDIR(status.st_mode) and enters(found):
                    return path, self.merged_from(path, frame.layers[frame.layers.index(layer) :])
            return None
        finally:
            for descriptor in opened.values():
                os.close(descriptor)


_Entry = tuple[bytes, int, os.stat_result]


class _Frame:
    """A directory that the walk is in: what is left of it, last first."""

    __slots__ = ("layers", "left", "path")

    def __init__(self, path: bytes, layers: tuple[int, ...], entries: list[_Entry]) -> None:
        self.path = path
        self.layers = layers
        self.left = entries[::-1]


def _name(entry: _Entry) -> bytes:
    return entry[0]


def lookup(name: bytes, opened: list[tuple[int, int]]) -> tuple[int, os.stat_result] | None:
    """What `name` is in the topmost of the opened directories that has it; None if absent or whited out."""
    for layer, descriptor in opened:
        try:
            status = os.lstat(name, dir_fd=descriptor)
        except FileNotFoundError:
            continue
        return None if is_whiteout(status) else (layer, status)
    return None


def is_whiteout(status: os.stat_result) -> bool:
    """Overlay's mark for a removed entry (kernel: Documentation/filesystems/overlayfs.rst)."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory_fd: int) -> bool:
    try:
        return os.getxattr(directory_fd, OPAQUE_XATTR) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            return False
        raise
