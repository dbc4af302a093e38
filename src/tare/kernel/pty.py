"""Pseudo-terminals of a given devpts instance, opened by descriptor. Walks no path (CVE-2025-52565)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from tare.errors import KernelError
from tare.kernel.fds import DEVPTS_SUPER_MAGIC, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, file_system_type, openat2

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pty(devpts_fd: int) -> tuple[int, int]:
    """A new terminal of the devpts mount that `devpts_fd` is the root of: (terminal's master, slave), both cloexec."""
    if file_system_type(devpts_fd) != DEVPTS_SUPER_MAGIC:
        raise KernelError(errno.ENODEV, "fstatfs", "/dev/pts", "not a devpts file system")
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master_fd = openat2(devpts_fd, "ptmx", flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    try:
        fcntl.ioctl(master_fd, _TIOCSPTLCK, struct.pack("i", 0))
        slave_fd = fcntl.ioctl(master_fd, _TIOCGPTPEER, flags)
    except OSError as error:
        os.close(master_fd)
        raise KernelError(error.errno or errno.EIO, "ioctl", "/dev/ptmx") from error
    return master_fd, slave_fd


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Sets a terminal's window size; its foreground group gets SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def make_controlling_terminal(fd: int) -> None:
    """Makes `fd` the controlling terminal of this session, which must have none (ioctl_tty(2))."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
