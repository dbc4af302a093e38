"""Empty snapshot directories made ahead of their use.

Must never hold a directory that was used before: what a container left on it (attributes, flags, a mount that is still
being taken down) would reach the next one.

Why: ext4 passes over inodes that were deleted in the last minutes (kernel: fs/ext4/ialloc.c, recently_deleted), one by
one. After thousands of deletions a mkdir can take a millisecond; a rename stays at some microseconds.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from pathlib import Path

from tare.storage.durable import make_spread_directory
from tare.storage.full_disk import is_full
from tare.storage.trash import Trash

_KEPT = 16


def make_directories(path: str) -> None:
    """What overlayfs needs of a snapshot."""
    os.mkdir(path, 0o700)
    os.mkdir(path + "/work", 0o700)
    os.mkdir(path + "/upper", 0o700)


class Spares:
    """Some unused snapshot directories below `root`; every method may be called from any thread."""

    def __init__(self, root: Path, trash: Trash) -> None:
        self._root = root
        self._ready: deque[str] = deque()
        make_spread_directory(root)
        for entry in os.scandir(root):  # made by an engine that is gone; perhaps half
            trash.throw(Path(entry.path))

    def take(self, path: str) -> bool:
        """Renames a spare to `path`; False if none is left."""
        try:
            os.rename(self._ready.pop(), path)
        except (IndexError, FileNotFoundError):
            return False
        return True

    def refill(self) -> None:
        """As many as the disk has room for."""
        while len(self._ready) < _KEPT:
            path = f"{self._root}/{os.urandom(16).hex()}"
            try:
                make_directories(path)
            except OSError as error:
                if not is_full(error):
                    raise
                shutil.rmtree(path, ignore_errors=True)
                return
            self._ready.append(path)
