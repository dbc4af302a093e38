"""Which containers see a file of a layer: those over it in whose stack no higher layer covers the path.

Must never count a container's own upper directory as a cover: a process that opened the file before it was copied up
still reads the layer's (overlayfs.rst, "Non-standard behavior").
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from tare.storage.merged import is_opaque, is_whiteout
from tare.storage.tree_reader import open_directory


def seen_in(stack: Iterable[str], diff_id: str, path: bytes, tree_of: Callable[[str], Path]) -> bool:
    """Whether the layer's `path` shows in a stack of layers, bottom first; the layer may stand there more than once."""
    for above in dict.fromkeys(reversed(list(stack))):
        if above == diff_id:
            return True
        if covers(tree_of(above), path):
            return False
    return False


def covers(tree: Path, path: bytes) -> bool:
    """Whether a layer has something at `path`, or cuts off what layers below have there."""
    descriptor = open_directory(tree)
    try:
        parts = path.split(b"/")
        for number, part in enumerate(parts):
            try:
                status = os.lstat(part, dir_fd=descriptor)
            except FileNotFoundError:
                return False
            if number == len(parts) - 1 or is_whiteout(status) or not stat.S_ISDIR(status.st_mode):
                return True
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
            if is_opaque(descriptor):
                return True
        return False
    finally:
        os.close(descriptor)
