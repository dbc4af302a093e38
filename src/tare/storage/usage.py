"""How many bytes the files below a directory have, as Docker counts a container's size, and as du counts them.

Must never follow a symbolic link; the tree may change under the walk.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from tare.storage.merged import Stack


def usage(directory: Path) -> int:
    """Apparent sizes of all regular files, a file with several names counted once."""
    total = 0
    seen: set[int] = set()
    with Stack([directory]) as stack:
        for found in stack.walk():
            status = found.status
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_nlink > 1:
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            total += status.st_size
    return total


class Measured(NamedTuple):
    """size_bytes: apparent, of regular files (as `usage`). disk_bytes: blocks of everything, as du counts them."""

    size_bytes: int = 0
    disk_bytes: int = 0

    def plus(self, other: Measured) -> Measured:
        return Measured(self.size_bytes + other.size_bytes, self.disk_bytes + other.disk_bytes)


def measure(path: Path) -> Measured:
    """What a file, or a directory with all below it on the same file system, takes. Raises FileNotFoundError."""
    top = os.lstat(path)
    if not stat.S_ISDIR(top.st_mode):
        return Measured(top.st_size if stat.S_ISREG(top.st_mode) else 0, top.st_blocks * 512)
    size, disk = 0, top.st_blocks * 512
    seen: set[int] = set()
    with Stack([path]) as stack:
        for found in stack.walk(whiteouts=True, enters=lambda found: found.status.st_dev == top.st_dev):
            status = found.status
            if status.st_dev != top.st_dev or status.st_ino in seen:
                continue
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                seen.add(status.st_ino)
            disk += status.st_blocks * 512
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Measured(size, disk)


def free_bytes(directory: Path) -> int:
    """What an unprivileged process could still write to the file system."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
