"""Removing trees of any size and depth: renamed away at once, deleted later.

Must never follow a link or leave the trash directory; a tree's depth costs neither stack nor descriptors.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tare import faults
from tare.storage import durable
from tare.storage.tree_reader import open_directory


class Trash:
    """A directory on the same file system as what is thrown away."""

    def __init__(self, root: Path) -> None:
        self.root = root
        durable.make_private_directory(root)

    def throw(self, path: Path) -> bool:
        """Moves `path` here with one rename; says whether it was there."""
        faults.point("storage.trash.throw")
        try:
            path.rename(self.root / os.urandom(16).hex())
        except FileNotFoundError:
            return False
        return True

    def empty(self) -> int:
        """Deletes all that is here; returns how many names it removed. Safe to run in several threads."""
        removed = 0
        trash_fd = open_directory(self.root)
        try:
            while names := _names(trash_fd):
                before = removed
                for name in names:
                    removed += _delete(trash_fd, name)
                if removed == before:
                    break  # another thread is at the same names
        finally:
            os.close(trash_fd)
        return removed


def _names(directory_fd: int) -> list[str]:
    """What is there now. Btrfs shows what was there when the directory was opened or rewound (rewinddir(3))."""
    os.lseek(directory_fd, 0, os.SEEK_SET)
    return os.listdir(directory_fd)


def _delete(trash_fd: int, name: str) -> int:
    """Deletes a file, or a directory's files; its subdirectories move up into the trash, to be taken in their turn."""
    faults.point("storage.trash.delete")
    removed = 0
    try:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=trash_fd).st_mode):
            os.unlink(name, dir_fd=trash_fd)
            return 1
        directory_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=trash_fd)
    except FileNotFoundError:
        return 0
    try:
        with os.scandir(directory_fd) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        os.rename(entry.name, os.urandom(16).hex(), src_dir_fd=directory_fd, dst_dir_fd=trash_fd)
                    else:
                        os.unlink(entry.name, dir_fd=directory_fd)
                    removed += 1
                except FileNotFoundError:
                    pass
    finally:
        os.close(directory_fd)
    try:
        os.rmdir(name, dir_fd=trash_fd)
        removed += 1
    except (FileNotFoundError, OSError):
        pass  # another thread was here first, or put a name back; the next round sees it
    return removed
