"""How many bytes the files below a directory have, as Docker counts a container's size.

Must never follow a symbolic link; the tree may change under the walk.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

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


def free_bytes(directory: Path) -> int:
    """What an unprivileged process could still write to the file system."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
