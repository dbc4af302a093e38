"""What file systems can do beyond the os module: syncing one whole, sharing extents between files. Holds no policy."""

from __future__ import annotations

import errno
import fcntl

from tare.kernel.libc import syscall

_FICLONE = 0x40049409  # include/uapi/linux/fs.h
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
