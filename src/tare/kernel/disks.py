"""What file systems can do beyond the os module: syncing one whole, sharing extents between files. Holds no policy."""

from __future__ import annotations

import errno
import fcntl
import struct

from tare.errors import KernelError
from tare.kernel.libc import syscall

_FICLONE = 0x40049409  # include/uapi/linux/fs.h
_FIDEDUPERANGE = 0xC0189436
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
_FS_TOPDIR_FL = 0x00020000
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # include/uapi/linux/falloc.h
_NO_REFLINKS = frozenset((errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY))


def syncfs(fd: int) -> None:
    """syncfs(2): everything written to the file system that fd is on reaches the disk."""
    syscall("syncfs", fd)


def clone_file(from_fd: int, to_fd: int) -> bool:
    """ioctl_ficlone(2): makes to_fd share all of from_fd's extents. False where the file system can't."""
    try:
        fcntl.ioctl(to_fd, _FICLONE, from_fd)
    except OSError as error:
        if error.errno in _NO_REFLINKS:
            return False
        raise
    return True


def share_range(from_fd: int, to_fd: int, offset: int, length: int) -> int:
    """ioctl_fideduperange(2): to_fd shares from_fd's extents where both have the same bytes at the same offset.

    The kernel compares; returns the bytes that are shared now, 0 if they differ. Raises KernelError (EOPNOTSUPP …).
    """
    request = struct.pack("QQHHI", offset, length, 1, 0, 0) + struct.pack("qQQiI", to_fd, offset, 0, 0, 0)
    try:
        answer = fcntl.ioctl(from_fd, _FIDEDUPERANGE, request)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "ioctl FIDEDUPERANGE") from error
    _, _, shared, status, _ = struct.unpack("qQQiI", answer[24:])
    if status < 0:
        raise KernelError(-status, "ioctl FIDEDUPERANGE")
    return int(shared) if status == 0 else 0


def punch_hole(fd: int, offset: int, length: int) -> None:
    """fallocate(2), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: the range reads as zeros, its whole blocks are free."""
    syscall("fallocate", fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


def spread_subdirectories(fd: int) -> bool:
    """Asks for the directories made in this one to be placed far from each other (chattr(1), "T").

    On ext4 a new tree then rarely comes to lie where another was just deleted, which makes every new file slow there
    for minutes (fs/ext4/ialloc.c, recently_deleted). False where the file system has no such flag.
    """
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(4)))
        if not flags & _FS_TOPDIR_FL:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", flags | _FS_TOPDIR_FL))
    except OSError:
        return False  # only a hint
    return True
