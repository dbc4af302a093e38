"""Copy-up: an empty volume takes over the files that the image has at the place where it is mounted.

    the image's merged layers ──copy──▶ .filling-<random> ──rename──▶ .filled ──rename, entry by entry──▶ _data

A crash before the first rename leaves an empty volume, one after it a copy that `resume` moves on: never a part of the
files. What fails, as on a full disk, leaves the volume as it was. Must never follow a link out of the image's layers or
out of the volume (CVE-2022-23648): the place is resolved in user space within the layers, and every file is opened
beneath a directory's descriptor.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tare import faults
from tare.errors import InvalidArgument
from tare.storage import inside
from tare.storage.full_disk import naming_the_disk
from tare.storage.limits import DEFAULT_LIMITS
from tare.storage.merged import Found, Stack
from tare.storage.trash import Trash
from tare.storage.tree_reader import open_beneath, open_directory, read_xattrs
from tare.storage.tree_writer import Metadata, TreeWriter

_CHUNK_BYTES = 1 << 24
_FILLED = ".filled"
_FILLING = ".filling-"


def is_empty(directory: Path) -> bool:
    """Whether nothing is in a volume yet."""
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def is_file(stack: Stack, place: str) -> bool:
    """Whether the image has something other than a directory at a place."""
    found = inside.resolve(stack, os.fsencode(place))
    return found is not None and not stat.S_ISDIR(found.status.st_mode)


def fill(stack: Stack, place: str, directory: Path, trash: Trash) -> bool:
    """Copies what the image has at `place` into the empty volume below `directory`; says whether it has anything."""
    found = inside.resolve(stack, os.fsencode(place))
    if found is None or not stat.S_ISDIR(found.status.st_mode):
        return False
    with naming_the_disk(directory):
        _fill(stack, found, directory, trash)
    return True


def _fill(stack: Stack, found: inside.Inside, directory: Path, trash: Trash) -> None:
    staging = directory / f"{_FILLING}{os.urandom(16).hex()}"
    staging.mkdir(mode=0o700)
    try:
        staging_fd = open_directory(staging)
        try:
            copy_tree(stack, found, staging_fd, directory)
        finally:
            os.close(staging_fd)
        faults.point("volumes.fill.copied")
        staging.rename(directory / _FILLED)
    except BaseException:
        trash.throw(staging)
        raise
    try:
        faults.point("volumes.fill.complete")
        resume(directory, trash)
    except BaseException:
        _give_up(directory, trash)
        raise


def fill_foreign(stack: Stack, place: str, target_fd: int, shadow: Path) -> bool:
    """The same for a directory that isn't the engine's own (a bind, a network file system): in place, if empty."""
    found = inside.resolve(stack, os.fsencode(place))
    if found is None or not stat.S_ISDIR(found.status.st_mode) or os.listdir(target_fd):
        return False
    with _as_before(target_fd):
        try:
            copy_tree(stack, found, target_fd, shadow)
        except BaseException:
            for name in os.listdir(target_fd):
                _delete(name, target_fd)
            raise
    return True


def resume(directory: Path, trash: Trash) -> None:
    """Moves a complete copy into place and throws incomplete ones away. What the volume has by now stays.

    It is moved as a whole: if that fails, nothing of it is in the volume, and it waits for the next time.
    """
    for entry in list(os.scandir(directory)):
        if entry.name.startswith(_FILLING):
            trash.throw(Path(entry.path))
    filled = directory / _FILLED
    if not filled.is_dir():
        return
    filled_fd, data_fd = open_directory(filled), open_directory(directory / "_data")
    try:
        with _as_before(data_fd), _moved(filled_fd, data_fd):
            _write_metadata(_metadata(os.fstat(filled_fd), read_xattrs(filled_fd, b".")), data_fd)
            faults.point("volumes.fill.placed")
            aside = _put_aside(directory)
    finally:
        os.close(filled_fd)
        os.close(data_fd)
    trash.throw(aside)


def _put_aside(directory: Path) -> Path:
    """What was complete isn't looked at any more."""
    aside = directory / f"{_FILLING}{os.urandom(16).hex()}"
    (directory / _FILLED).rename(aside)
    return aside


def _give_up(directory: Path, trash: Trash) -> None:
    """After a failure: the complete copy isn't wanted any more, unless a part of it couldn't be taken back."""
    if is_empty(directory / "_data"):
        with suppress(OSError):
            trash.throw(_put_aside(directory))


@contextmanager
def _moved(filled_fd: int, data_fd: int) -> Iterator[None]:
    """All of it is moved, or, if that or the block fails, nothing."""
    taken, moved = set(os.listdir(data_fd)), []
    try:
        for name in os.listdir(filled_fd):
            if name not in taken:
                os.rename(name, name, src_dir_fd=filled_fd, dst_dir_fd=data_fd)
                moved.append(name)
                faults.point("volumes.fill.moved")
        yield
    except BaseException:
        for name in moved:
            os.rename(name, name, src_dir_fd=data_fd, dst_dir_fd=filled_fd)
        raise


@contextmanager
def _as_before(directory_fd: int) -> Iterator[None]:
    """A directory's owner, mode, time and attributes are what they were if the block fails."""
    before = _metadata(os.fstat(directory_fd), read_xattrs(directory_fd, b"."))
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for name in read_xattrs(directory_fd, b".").keys() - before.xattrs.keys():
                os.removexattr(directory_fd, name)
            _write_metadata(before, directory_fd)
        raise


def _write_metadata(metadata: Metadata, directory_fd: int) -> None:
    writer = TreeWriter(directory_fd, -1, DEFAULT_LIMITS)
    try:
        writer.directory(b"", metadata)
        writer.finish()
    finally:
        writer.close()


def _delete(name: str, directory_fd: int) -> None:
    if stat.S_ISDIR(os.lstat(name, dir_fd=directory_fd).st_mode):
        shutil.rmtree(name, dir_fd=directory_fd)
    else:
        os.unlink(name, dir_fd=directory_fd)


def copy_tree(stack: Stack, found: inside.Inside, target_fd: int, shadow: Path) -> None:
    """Copies a directory of the merged layers, itself included, into the empty directory target_fd.

    Owners, modes, times, attributes, hard links and devices are kept; sockets mean nothing in a copy and are left out.
    shadow: any directory; nothing is ever displaced into it, since merged names are unique.
    """
    shadow_fd = open_directory(shadow)
    writer = TreeWriter(target_fd, shadow_fd, DEFAULT_LIMITS)
    names: dict[tuple[int, int], bytes] = {}
    try:
        root_fd = open_beneath(stack.root_fds[found.layers[0]], found.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            writer.directory(b"", _metadata(found.status, read_xattrs(root_fd, b".")))
        finally:
            os.close(root_fd)
        skipped = len(found.path) + 1 if found.path else 0
        for entry in stack.walk(start=found.path, layers=found.layers):
            _copy_entry(writer, entry, entry.path[skipped:], names)
        writer.finish()
    finally:
        writer.close()
        os.close(shadow_fd)


def _copy_entry(writer: TreeWriter, entry: Found, path: bytes, names: dict[tuple[int, int], bytes]) -> None:
    status, kind = entry.status, stat.S_IFMT(entry.status.st_mode)
    if kind == stat.S_IFSOCK:
        return
    meta = _metadata(status, read_xattrs(entry.directory_fd, entry.name))
    if kind == stat.S_IFDIR:
        writer.directory(path, meta)
        return
    if status.st_nlink > 1:
        first = names.setdefault((entry.layer, status.st_ino), path)
        if first != path:
            writer.hard_link(path, first)
            return
    if kind == stat.S_IFLNK:
        writer.symlink(path, os.readlink(entry.name, dir_fd=entry.directory_fd), meta)
    elif kind == stat.S_IFREG:
        _copy_file(writer, entry, path, meta)
    else:
        writer.node(path, kind, status.st_rdev, meta)


def _copy_file(writer: TreeWriter, entry: Found, path: bytes, meta: Metadata) -> None:
    source_fd = open_beneath(entry.directory_fd, entry.name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(source_fd).st_mode):
            raise InvalidArgument(f"{os.fsdecode(path)}: changed while it was copied")
        target_fd = writer.create_file(path)
        try:
            _copy_bytes(source_fd, target_fd)
            writer.set_file(target_fd, meta)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _copy_bytes(source_fd: int, target_fd: int) -> None:
    copy: Callable[[], int] = lambda: os.copy_file_range(source_fd, target_fd, _CHUNK_BYTES)  # noqa: E731
    try:
        while copy():
            pass
    except OSError:
        # Not between these file systems (copy_file_range(2): EXDEV, EINVAL, EOPNOTSUPP …): both offsets still agree.
        while os.sendfile(target_fd, source_fd, None, _CHUNK_BYTES):
            pass


def _metadata(status: os.stat_result, xattrs: dict[bytes, bytes]) -> Metadata:
    return Metadata(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)
