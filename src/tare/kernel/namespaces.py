"""Namespaces: unshare(2), setns(2) and the id maps of user namespaces. Decides nothing about which to use.

In a process with several threads only the caller moves, and CLONE_NEWUSER and setns(mnt) fail: call these only from a
process that has one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator

from tare.errors import KernelError
from tare.kernel import capabilities, process
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


def mapped_root(pid: int, name: str) -> int:
    """What id 0 of a process's user namespace is in ours, -1 if nothing. name: uid_map or gid_map."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            rows = [[int(word) for word in line.split()] for line in file]
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "open", f"/proc/{pid}/{name}") from error
    return next((row[1] for row in rows if row[0] == 0), -1)


_NS_GET_USERNS = 0xB701  # ioctl_ns(2)


def owner_of(namespace_fd: int) -> int:
    """A descriptor of the user namespace that owns a namespace (ioctl_ns(2)); close-on-exec."""
    return syscall("ioctl", namespace_fd, _NS_GET_USERNS, 0, about="owning user namespace")


def is_own(user_fd: int) -> bool:
    """Whether a descriptor is of the user namespace that we are in ourselves."""
    ours, theirs = os.stat("/proc/self/ns/user"), os.fstat(user_fd)
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def make_user_namespace(uid_map: str, gid_map: str, *, network: bool = False) -> tuple[int, int]:
    """A user namespace with these maps that nobody is in, and with `network` a network namespace of its own (else -1).

    A child makes them and is killed: we can't come back from one. Call it in a process with one thread.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _make_and_wait(write_fd, CLONE_NEWUSER | (CLONE_NEWNET if network else 0))
    opened: list[int] = []
    try:
        os.close(write_fd)
        answer = os.read(read_fd, 16)
        if answer != b"made":
            raise KernelError(int(answer or errno.EIO), "unshare", "user namespace")
        write_id_maps(pid, uid_map, gid_map)
        opened.append(open_namespace(f"/proc/{pid}/ns/user"))
        if network:
            opened.append(open_namespace(f"/proc/{pid}/ns/net"))
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    finally:
        os.close(read_fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # reaped by the kernel where SIGCHLD is ignored
            os.waitpid(pid, 0)
    return opened[0], opened[1] if network else -1


def _make_and_wait(write_fd: int, flags: int) -> None:
    try:
        syscall("prctl", 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        unshare(flags)
        os.write(write_fd, b"made")
        while True:
            signal.pause()
    except KernelError as error:
        os.write(write_fd, b"%d" % error.errno)
    finally:
        os._exit(1)


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """While it is entered, this thread makes files as that user, with all its capabilities (setfsuid(2)).

    What is made through an id-mapped mount needs an owner that the map knows; the host's root may be none.
    """
    effective, permitted, inheritable = capabilities.capget()
    dumpable = process.is_dumpable()
    syscall("setfsgid", gid)
    syscall("setfsuid", uid)
    try:
        capabilities.capset(permitted, permitted, inheritable)  # the change took those over files
        yield
    finally:
        syscall("setfsuid", os.geteuid())
        syscall("setfsgid", os.getegid())
        capabilities.capset(effective, permitted, inheritable)
        if dumpable:
            process.set_dumpable(True)  # each change took that from the whole process
