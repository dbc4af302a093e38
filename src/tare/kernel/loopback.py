"""Brings up `lo` of the calling process's network namespace. Knows no other link."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

from tare.errors import KernelError

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFF_RUNNING = 0x40


def bring_up_loopback() -> None:
    """Sets `lo` up; it gets 127.0.0.1 and ::1 by that."""
    request = struct.pack("16sH22x", b"lo", _IFF_UP | _IFF_RUNNING)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            fcntl.ioctl(link.fileno(), _SIOCSIFFLAGS, request)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "ioctl", "lo") from error
