"""The merged view of a stack of layer directories, as overlayfs would show it, walked in user space.

Must never follow a symbolic link or hold more descriptors than the stack has layers; trees may change under the walk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

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
        shown = []
        for layer in layers:
            try:
                descriptor = open_directory_beneath(self.root_fds[layer], path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    break
                raise
            try:
                shown.append(layer)
                if is_opaque(descriptor):
                    break
            finally:
                os.close(descriptor)
        return tuple(shown)

    def lookup(self, path: bytes, layers: Sequence[int]) -> tuple[int, os.stat_result] | None:
        """What `path` is in `layers`, whose parent directories are known to show; None if absent or whited out."""
        for layer in layers:
            try:
                status = self._lstat(layer, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return None if is_whiteout(status) else (layer, status)
        return None

    def _lstat(self, layer: int, path: bytes) -> os.stat_result:
        head, _, name = path.rpartition(b"/")
        if not head:
            return os.lstat(name, dir_fd=self.root_fds[layer])
        parent_fd = open_directory_beneath(self.root_fds[layer], head)
        try:
            return os.lstat(name, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)

    def list_directory(self, path: bytes, layers: Sequence[int]) -> Iterator[Found]:
        """The merged entries of one directory, sorted by name; whiteouts are applied and not shown."""
        with ExitStack() as exits:
            seen: dict[bytes, Found | None] = {}
            for layer in layers:
                try:
                    descriptor = open_directory_beneath(self.root_fds[layer], path)
                except FileNotFoundError:
                    continue
                exits.callback(os.close, descriptor)
                for encoded in os.listdir(descriptor):
                    name = os.fsencode(encoded)
                    if name in seen:
                        continue
                    try:
                        status = os.lstat(name, dir_fd=descriptor)
                    except FileNotFoundError:
                        continue  # removed meanwhile
                    whole = path + b"/" + name if path else name
                    seen[name] = None if is_whiteout(status) else Found(whole, name, descriptor, layer, status)
            for name in sorted(seen):
                found = seen[name]
                if found is not None:
                    yield found

    def walk(self) -> Iterator[Found]:
        """Everything below the root: a directory's entries sorted by name, then what is in its subdirectories.

        So only one directory is open at a time, however deep a tree is.
        """
        waiting: list[tuple[bytes, tuple[int, ...]]] = [(b"", self.everything)]
        while waiting:
            path, layers = waiting.pop()
            below = []
            for found in self.list_directory(path, layers):
                yield found
                if stat.S_ISDIR(found.status.st_mode):
                    below.append((found.path, self.merged_from(found.path, layers[layers.index(found.layer) :])))
            waiting.extend(reversed(below))


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
