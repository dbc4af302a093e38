"""Writing aside, syncing and renaming: how a file or directory becomes visible whole or not at all.

Must never leave a half-written file under its final name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tare import faults
from tare.kernel.disks import spread_subdirectories, syncfs

_FEW_FILES = 24


def sync_directory(path: Path | str) -> None:
    """fsync of a directory, so that a rename inside it survives a power failure (`man 2 fsync`)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, *, mode: int = 0o600, point: str = "storage.file") -> None:
    """Replaces `path` by a file of `data`: written aside, synced, renamed, directory synced."""
    aside = path.with_name(f".{path.name[:64]}.{os.urandom(16).hex()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            faults.point(f"{point}.write")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        faults.point(f"{point}.rename")
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_private_directory(path: Path) -> None:
    """A directory that only root may enter, so that setuid files of images are out of reach (CVE-2021-41091)."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def make_spread_directory(path: Path) -> None:
    """A private directory in which many trees come and go."""
    make_private_directory(path)
    _with_descriptor(path, spread_subdirectories)


def sync_tree(path: Path) -> None:
    """All that is below `path` reaches the disk.

    A few files are synced one by one. Many at once by syncfs(2): it costs one commit of the file system's journal, but
    also writes what other programs have pending there.
    """
    found: list[Path] = [path]
    for directory in found:
        if len(found) > _FEW_FILES:
            break
        if directory.is_symlink() or not directory.is_dir():
            continue
        found.extend(Path(entry.path) for entry in os.scandir(directory))
    if len(found) > _FEW_FILES:
        _with_descriptor(path, syncfs)
        return
    for each in found:
        status = each.lstat()
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            _with_descriptor(each, os.fsync)


def _with_descriptor(path: Path, call: Callable[[int], object]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        call(descriptor)
    finally:
        os.close(descriptor)
