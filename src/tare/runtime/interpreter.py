"""Makes the running interpreter's binary unwritable for containers (CVE-2019-5736).

A container's first process is this interpreter until it executes the user's program. A program `/proc/self/exe`, or one
whose `#!` line names that, is the host's Python run once more inside, and through its /proc/self/exe a root process in
the container could write the host's file as soon as nobody executes it. So the process that containers are forked from
runs Python from a read-only mount that is attached nowhere: what is reached through /proc/*/exe then lies on a mount
that nobody can make writable.
"""

from __future__ import annotations

import errno
import os
import sys

from tare.errors import KernelError
from tare.kernel import mounts
from tare.kernel.fds import sealed_copy

_MARK = "TARE_INTERPRETER_PROTECTED"


def is_protected() -> bool:
    """Whether our binary can't be opened for writing through /proc/self/exe: a read-only mount, or a sealed memfd."""
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            return True
        return os.readlink("/proc/self/exe").startswith("/memfd:")
    finally:
        os.close(fd)


def _open_protected() -> int:
    try:
        fd = mounts.clone_tree(os.readlink("/proc/self/exe"))
        mounts.mount_setattr(fd, set=mounts.MOUNT_ATTR_RDONLY)
        return fd
    except KernelError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
            raise
    with open("/proc/self/exe", "rb") as file:
        return sealed_copy("python", file.read())


def protect_interpreter() -> None:
    """Executes this very program again from a protected copy of the interpreter; returns if it is one already.

    To be called first thing in a program that containers are forked from, before it holds anything.
    """
    if os.environ.pop(_MARK, "") or is_protected():
        return
    fd = _open_protected()
    # The mark keeps a kernel that fools is_protected from making us loop.
    environment = {**os.environ, _MARK: "1"}
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(f"/proc/self/fd/{fd}", arguments, environment)
