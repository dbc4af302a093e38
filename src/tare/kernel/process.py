"""Attributes of the calling process: prctl(2), names, keyring, priorities, seccomp. Decides none of them."""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterable

from tare.errors import KernelError
from tare.kernel.libc import address_of, overwrite_memory, syscall

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_MODE_FILTER = 2
_KEYCTL_JOIN_SESSION_KEYRING = 1
_IOPRIO_WHO_PROCESS = 1
_SIGACTION_BYTES, _SIGSET_BYTES = 32, 8  # the kernel's own struct sigaction, all zero: SIG_DFL
_SIG_BLOCK = 0


def _prctl(option: int, value: int) -> int:
    return syscall("prctl", option, value, 0, 0, 0)


def set_parent_death_signal(signal_number: int) -> None:
    """The signal that this process gets when its parent thread dies; 0 for none."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def set_dumpable(dumpable: bool) -> None:
    """Whether others of our user may ptrace us and open our files in /proc; execve(2) sets it again."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable))


def is_dumpable() -> bool:
    """Whether they may."""
    return syscall("prctl", _PR_GET_DUMPABLE, 0, 0, 0, 0) == 1


def set_keep_capabilities(keep: bool) -> None:
    """Whether the permitted set survives setuid(2) to another user."""
    _prctl(_PR_SET_KEEPCAPS, int(keep))


def set_name(name: str) -> None:
    """The name of this thread, at most 15 bytes."""
    syscall("prctl", _PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def set_child_subreaper(on: bool) -> None:
    """Whether orphaned descendants become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def is_child_subreaper() -> bool:
    """Whether this process is a subreaper."""
    buffer = bytearray(8)
    syscall("prctl", _PR_GET_CHILD_SUBREAPER, buffer, 0, 0, 0)
    return buffer[0] != 0


def set_no_new_privileges() -> None:
    """From now on no execve(2) gives more rights; can't be undone."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def sethostname(name: str) -> None:
    """Names this uts namespace."""
    encoded = name.encode()
    syscall("sethostname", encoded, len(encoded), about=name)


def setdomainname(name: str) -> None:
    """The NIS domain of this uts namespace."""
    encoded = name.encode()
    syscall("setdomainname", encoded, len(encoded), about=name)


def join_session_keyring(name: str) -> None:
    """Gives this process a new session keyring, so that it can't see its creator's keys."""
    syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, name.encode(), 0, 0, 0)


def personality(persona: int) -> None:
    """personality(2): the execution domain and its flags."""
    syscall("personality", persona)


def ioprio_set(io_class: int, priority: int) -> None:
    """The I/O priority of this process (ioprio_set(2))."""
    syscall("ioprio_set", _IOPRIO_WHO_PROCESS, 0, io_class << 13 | priority)


def sched_setattr(
    policy: int, flags: int, nice: int, priority: int, runtime_ns: int, deadline_ns: int, period_ns: int
) -> None:
    """The scheduling policy of this process (sched_setattr(2))."""
    packed = struct.pack("IIQiIQQQ", 48, policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns)
    syscall("sched_setattr", 0, packed, 0)


def load_seccomp_filter(program: bytes, flags: int = 0) -> None:
    """Puts this process under a BPF program (an array of struct sock_filter; seccomp(2))."""
    pinned = bytearray(program)
    # struct sock_fprog {unsigned short len; struct sock_filter *filter;}
    header = struct.pack("HxxxxxxQ", len(program) // 8, address_of(pinned))
    syscall("seccomp", _SECCOMP_SET_MODE_FILTER, flags, header)


def find_title_area() -> tuple[int, int]:
    """Where this process's arguments lie in memory: address and size. Only before a foreign /proc can be there."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end (man 5 proc, fields 48 and 49)
    return start, max(end - start, 0)


def set_title(area: tuple[int, int], title: str) -> None:
    """What `ps` shows as this process's command line and name: its argument memory is written over.

    Without this, pid 1 of a container whose reaper we are would show the host daemon's arguments inside.
    """
    set_command_line(area, title)
    set_name(title.split(" ")[0].rpartition("/")[2])


def set_command_line(area: tuple[int, int], text: str) -> None:
    """What `ps` shows as this process's command line alone."""
    start, size = area
    if start and size:
        overwrite_memory(start, size, text.encode("utf-8", "replace"))


def default_signal(number: int) -> None:
    """Gives a signal its default action again, behind the interpreter's back: `signal.signal` touches much memory."""
    syscall("rt_sigaction", number, bytes(_SIGACTION_BYTES), None, _SIGSET_BYTES)


def block_signals(numbers: Iterable[int]) -> bytes:
    """Blocks these signals; returns their set, for `wait_signal`. Also those that the C library keeps from us.

    musl keeps 34 to itself, which is the first real-time signal to everybody else, and has none of its calls take it.
    """
    signals = sum(1 << (number - 1) for number in numbers).to_bytes(_SIGSET_BYTES, sys.byteorder)
    syscall("rt_sigprocmask", _SIG_BLOCK, signals, None, _SIGSET_BYTES)
    return signals


def wait_signal(signals: bytes) -> int:
    """The number of the next signal of a set that is blocked."""
    while True:
        try:
            return syscall("rt_sigtimedwait", signals, None, None, _SIGSET_BYTES)
        except KernelError as error:
            if error.errno != errno.EINTR:  # being stopped and continued ends the call (man 7 signal)
                raise


def write_own(file: str, text: str) -> None:
    """Writes a file of /proc/self, before any foreign /proc can be there."""
    try:
        fd = os.open(f"/proc/self/{file}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or 5, "write", f"/proc/self/{file}") from error
