"""Where the file system lets files share blocks (btrfs, XFS): versions share those that are equal, and stay plain.

Must never share what the kernel itself hasn't compared.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from tare.errors import KernelError
from tare.kernel.disks import clone_file, share_range
from tare.kernel.fds import file_system_type
from tare.storage.chunks.cut import Stopped

BTRFS_SUPER_MAGIC = 0x9123683E  # include/uapi/linux/magic.h
_RANGE_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 10


def can_share(directory: Path) -> bool:
    """Whether files here can share blocks: tried on two files without a name."""
    flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
    try:
        first = os.open(directory, flags, 0o600)
    except OSError:
        return False
    try:
        second = os.open(directory, flags, 0o600)
        try:
            os.write(first, bytes(_BLOCK_BYTES))
            return clone_file(first, second)
        finally:
            os.close(second)
    finally:
        os.close(first)


def share(from_fd: int, to_fd: int, directory: Path, go_on: Callable[[], bool]) -> None:
    """Lets one version's file share with another's what is equal in both, block by block where a range differs.

    directory: a place for a file without a name. go_on is asked once a range; raises Stopped if it says no.
    """
    size = min(os.fstat(from_fd).st_size, os.fstat(to_fd).st_size)
    own: list[tuple[int, int]] = []
    try:
        for offset in range(0, size, _RANGE_BYTES):
            if not go_on():
                raise Stopped
            own += _share(from_fd, to_fd, offset, min(_RANGE_BYTES, size - offset))
        if file_system_type(to_fd) == BTRFS_SUPER_MAGIC and sum(length for _, length in own) < size // 2:
            _move(to_fd, own, directory)
    except KernelError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.EPERM):
            raise


def _share(from_fd: int, to_fd: int, offset: int, length: int) -> list[tuple[int, int]]:
    """A range, or its halves where it differs, down to a block; returns (offset, length) of what isn't shared."""
    length -= length % _BLOCK_BYTES  # a part of a block can't be shared
    if not length:
        return []
    if os.pread(from_fd, length, offset) == os.pread(to_fd, length, offset):
        return [] if share_range(from_fd, to_fd, offset, length) else [(offset, length)]
    if length <= _BLOCK_BYTES:
        return [(offset, length)]
    half = length // 2 - length // 2 % _BLOCK_BYTES
    return _share(from_fd, to_fd, offset, half) + _share(from_fd, to_fd, offset + half, length - half)


def _move(to_fd: int, own: list[tuple[int, int]], directory: Path) -> None:
    """Gives a file's own blocks small extents of their own.

    Btrfs keeps an extent whole as long as a block of it is used: one changed page would keep a whole version.
    """
    if not own:
        return
    aside = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        for offset, length in own:
            os.pwrite(aside, os.pread(to_fd, length, offset), offset)
        os.fsync(aside)
        for offset, length in own:
            share_range(aside, to_fd, offset, length)
    finally:
        os.close(aside)
