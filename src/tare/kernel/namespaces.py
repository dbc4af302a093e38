"""Namespaces: unshare(2), setns(2) and the id maps of user namespaces. Decides nothing about which to use.

In a process with several threads only the caller moves, and CLONE_NEWUSER and setns(mnt) fail: call these only from a
process that has one.
"""

from __future__ import annotations

import errno
import os

from tare.errors import KernelError
from tare.kernel.libc import syscall

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# OCI name: (flag, file below /proc/PID/ns). The order is the one in which they can be joined one by one.
NAMESPACES: dict[str, tuple[int, str]] = {
    "user": (CLONE_NEWUSER, "user"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "time": (CLONE_NEWTIME, "time"),
    "mount": (CLONE_NEWNS, "mnt"),
}


def unshare(flags: int) -> None:
    """Gives this process new namespaces (for pid and time: its next children)."""
    syscall("unshare", flags)


def setns(fd: int, flags: int, about: str | None = None) -> None:
    """Joins the namespace (or, for a pidfd, the namespaces) that `fd` stands for."""
    syscall("setns", fd, flags, about=about)


def pidfd_open(pid: int) -> int:
    """A descriptor of a process; it is close-on-exec."""
    return syscall("pidfd_open", pid, 0, about=str(pid))


def pidfd_send_signal(pidfd: int, signal_number: int) -> None:
    """Sends a signal to the very process that a pidfd stands for."""
    syscall("pidfd_send_signal", pidfd, signal_number, None, 0)


def open_namespace(path: str) -> int:
    """Opens a namespace file such as /proc/PID/ns/net."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "open", path) from error


def same_namespace(pid: int, name: str) -> bool:
    """Whether process `pid` is in the namespace of this kind (`net`, `user` …) that we are in ourselves.

    A kind that this kernel doesn't have counts as shared.
    """
    try:
        ours = os.stat(f"/proc/self/ns/{name}")
    except FileNotFoundError:
        return True
    try:
        theirs = os.stat(f"/proc/{pid}/ns/{name}")
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "stat", f"/proc/{pid}/ns/{name}") from error
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def write_proc(path: str, text: str) -> None:
    """Writes a file of /proc in one write(2)."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "write", path) from error


def write_id_maps(pid: int, uid_map: str, gid_map: str) -> None:
    """Writes the id maps of a process that just made its user namespace (user_namespaces(7))."""
    write_proc(f"/proc/{pid}/uid_map", uid_map)
    write_proc(f"/proc/{pid}/gid_map", gid_map)
