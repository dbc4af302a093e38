"""An archive into a directory of a live root: what is there already is merged with or replaced, as Docker's `cp` does.

Must never leave the root, whatever its processes rename or replace meanwhile, write through a file that exists, or
touch a mount point of the root (CVE-2018-15664, CVE-2026-42306).
"""

from __future__ import annotations

import errno
import os
import stat

from tare import errors, faults
from tare.kernel import fds
from tare.storage.decompress import Readable, plain_chunks
from tare.storage.extract import Unpacking, explained
from tare.storage.limits import Limits
from tare.storage.owners import Owners
from tare.storage.rooted import VIRTUAL
from tare.storage.tar_format import shown
from tare.storage.tar_reader import TarReader
from tare.storage.tree_writer import Metadata, TreeWriter

LIMITS = Limits(reserve_bytes=0)  # a container's own file systems may be filled to the last byte
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_MAX = 512


class Target(errors.InvalidArgument):
    """An entry of the archive and what is at its place don't go together."""


def overwrite(
    stream: Readable,
    root_fd: int,
    target_fd: int,
    target: str,
    *,
    keep_kinds: bool = False,
    owner: tuple[int, int] | None = None,
    owners: Owners | None = None,
    limits: Limits = LIMITS,
) -> None:
    """Unpacks `stream` (plain or compressed) into the directory that target_fd holds, `target` inside the root.

    keep_kinds: a directory is not replaced by anything else, nor anything else by a directory. owner: of all entries,
    whatever the archive says. owners: of a container with a user namespace of its own.
    Raises InvalidArgument, Forbidden (read-only), ResourceExhausted.
    """
    writer = Overwriter(root_fd, target_fd, target, keep_kinds, limits)
    try:
        reader = TarReader(plain_chunks(stream, limits), limits)
        unpacking = _Overwriting(reader, writer, _NoRecipe(), target_fd, limits)
        while entry := reader.next_entry():
            if owner is not None:
                entry.uid, entry.gid = owner
            if owners is not None:
                owners.place(entry)
            unpacking.apply(entry)
            faults.point("storage.overwrite.entry")
        reader.finish()
        writer.finish()
    except OSError as error:
        raise explained(error, "archive") from error
    finally:
        writer.close()


class _NoRecipe:
    def payload(self, path: bytes, size: int) -> None:
        pass

    def sparse(self, path: bytes, extents: list[tuple[int, int]]) -> None:
        pass


class _Overwriting(Unpacking):
    def is_mark(self, path: bytes) -> bool:
        """Here `.wh.x` is a file like any other."""
        return False


class Overwriter(TreeWriter):
    """Links on the way to an entry are followed, inside the root."""

    def __init__(self, root_fd: int, target_fd: int, target: str, keep_kinds: bool, limits: Limits) -> None:
        super().__init__(target_fd, -1, limits)
        self._whole_root_fd = root_fd
        self._target = target
        self._keep_kinds = keep_kinds

    def directory(self, path: bytes, meta: Metadata) -> None:
        if not path:
            return  # the target itself stays as it is
        if self._keep_kinds:
            parent, last = self.parent_fd(path)
            status = _status(parent, last)
            if status is not None and not stat.S_ISDIR(status.st_mode):
                place = f"{self._target.rstrip('/')}/{shown(path)}"
                raise Target(f'cannot overwrite non-directory "{place}" with directory "{self._target}"')
        super().directory(path, meta)

    def _finish_directory(self, descriptor: int, meta: Metadata) -> None:
        try:
            self._check(descriptor, b"")
        except BaseException:
            os.close(descriptor)
            raise
        super()._finish_directory(descriptor, meta)

    def _enter(self, descriptor: int, part: bytes, at: bytes, path: bytes) -> int:
        try:
            below = self._open(descriptor, part)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            below = self._follow(descriptor, part, at, path)
        try:
            self._check(below, at)
        except BaseException:
            os.close(below)
            raise
        return below

    @staticmethod
    def _open(descriptor: int, part: bytes) -> int:
        try:
            return os.open(part, _DIRECTORY, dir_fd=descriptor)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=descriptor)
            return os.open(part, _DIRECTORY, dir_fd=descriptor)

    def _follow(self, descriptor: int, part: bytes, at: bytes, path: bytes) -> int:
        """Where a symbolic link on the way leads. Its text may be false by now: the kernel keeps it in the root."""
        try:
            target = os.fsdecode(os.readlink(part, dir_fd=descriptor))
        except OSError:
            raise Target(f'"{shown(path)}": "{shown(at)}" is not a directory') from None
        if not target.startswith("/"):
            above = os.fsdecode(at.rpartition(b"/")[0])
            target = f"{self._target}/{above}/{target}"
        try:
            return fds.make_directories(self._whole_root_fd, target)
        except errors.KernelError as error:
            raise OSError(error.errno, errors.system_text(error.errno)) from error

    @staticmethod
    def _check(descriptor: int, at: bytes) -> None:
        if fds.file_system_type(descriptor) in VIRTUAL:
            raise errors.Forbidden(f'"{shown(at)}" is an interface of the kernel, not a place for files')

    def _displace(self, parent: int, last: bytes, path: bytes) -> None:
        status = _status(parent, last)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode) and self._keep_kinds:
            place = f"{self._target.rstrip('/')}/{shown(path)}"
            raise Target(f'cannot overwrite directory "{place}" with non-directory "{self._target}"')
        faults.point("storage.overwrite.replace")
        _remove(parent, last, path, 0)
        gone = path + b"/"
        for kept in [known for known in self._parents if known == path or known.startswith(gone)]:
            os.close(self._parents.pop(kept))
        for timed in [known for known in self._directory_times if known == path or known.startswith(gone)]:
            del self._directory_times[timed]


def _status(parent: int, last: bytes) -> os.stat_result | None:
    try:
        return os.lstat(last, dir_fd=parent)
    except FileNotFoundError:
        return None


def _remove(parent: int, name: bytes, path: bytes, depth: int) -> None:
    """Removes a file or tree, unless something is mounted on or in it.

    From another mount namespace the kernel would not refuse: unlink(2) of a mount point takes the mount away there.
    """
    if depth > _DEPTH_MAX:
        raise Target(f'"{shown(path)}": the directory in its place is too deep to be replaced')
    try:
        os.close(fds.openat2(parent, os.fsdecode(name), os.O_PATH | os.O_NOFOLLOW, 0, fds.RESOLVE_NO_XDEV))
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        directory_fd = fds.openat2(parent, os.fsdecode(name), _DIRECTORY, 0, fds.RESOLVE_NO_XDEV)
    except FileNotFoundError:
        return
    except errors.KernelError as error:
        if error.errno == errno.ENOENT:
            return
        if error.errno == errno.EXDEV:
            raise Target(f"unlinkat {shown(path)}: device or resource busy") from error
        raise OSError(error.errno, errors.system_text(error.errno)) from error
    try:
        for below in os.listdir(directory_fd):
            encoded = os.fsencode(below)
            _remove(directory_fd, encoded, path + b"/" + encoded, depth + 1)
    finally:
        os.close(directory_fd)
    os.rmdir(name, dir_fd=parent)
