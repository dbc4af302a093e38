"""System calls that Python's os module lacks, by number; the only module that imports ctypes. Holds no policy.

A call is named as in its manual page. Integers, byte strings and writable buffers are passed on as they are; structures
are packed by the callers.
"""

from __future__ import annotations

import ctypes
import os
import struct

from tare.errors import KernelError, Unsupported

# x86_64, aarch64 (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h). From 424 on all agree.
_NUMBERS: dict[str, tuple[int, int]] = {
    "ioctl": (16, 29),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "prctl": (157, 167),
    "capget": (125, 90),
    "capset": (126, 91),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigtimedwait": (128, 137),
    "personality": (135, 92),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "quotactl": (179, 60),
    "set_mempolicy": (238, 237),
    "keyctl": (250, 219),
    "ioprio_set": (251, 30),
    "unshare": (272, 97),
    "fallocate": (285, 47),
    "syncfs": (306, 267),
    "setns": (308, 268),
    "sched_setattr": (314, 274),
    "renameat2": (316, 276),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "mount_setattr": (442, 442),
    "quotactl_fd": (443, 443),
}
_COLUMNS = {"x86_64": 0, "aarch64": 1, "arm64": 1}

_machine = os.uname().machine
_column = _COLUMNS.get(_machine)
_numbers = {} if _column is None else {call: numbers[_column] for call, numbers in _NUMBERS.items()}
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_long = ctypes.c_long
_itself = ctypes.PyDLL(None)
bare_prctl = _itself.prctl
"""prctl(2) with integers, unchecked: for who counts the pages that a call touches."""
bare_signal = _itself.signal
"""signal(2), behind the interpreter's back."""
bare_memmove = _itself.memmove
bare_memmove.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
"""memmove(3), just so."""
_get_errno = ctypes.get_errno
_char_array = ctypes.c_char


def syscall(call: str, *arguments: int | bytes | bytearray | memoryview | None, about: str | None = None) -> int:
    """Makes the system call; returns its result or raises KernelError(errno, call, about).

    A `bytes` is a pointer to constant bytes (with a final NUL), a `bytearray` or writable memoryview one to be filled.
    """
    number = _numbers.get(call)
    if number is None:
        raise Unsupported(f"system call {call} on {_machine}")
    converted: list[object] = [_long(number)]
    for argument in arguments:
        if isinstance(argument, int):
            converted.append(_long(argument))
        elif argument is None or isinstance(argument, bytes):
            converted.append(argument)
        else:
            converted.append((_char_array * len(argument)).from_buffer(argument))
    result: int = _syscall(*converted)
    if result == -1:
        raise KernelError(_get_errno(), call, about)
    return result


def overwrite_memory(address: int, size: int, text: bytes) -> None:
    """Fills `size` bytes of this process at `address` with `text`, cut or padded with NUL."""
    ctypes.memmove(address, text[: size - 1].ljust(size, b"\0"), size)


def address_of(buffer: bytearray) -> int:
    """The address of a buffer's bytes; valid as long as the caller keeps it and doesn't resize it."""
    return ctypes.addressof((_char_array * len(buffer)).from_buffer(buffer))


_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17
_clone_args = struct.Struct("=11Q")


def fork_into_cgroup(cgroup_fd: int) -> int:
    """os.fork(), but the child starts in the cgroup (v2, Linux 5.7) that `cgroup_fd` holds; returns 0 in the child.

    Spares the 5 to 30 ms that moving a process there takes after idle. The interpreter's own hooks are run around the
    call, as os.fork() runs them, and the GIL is held throughout; the C library's are not: the caller must have one
    thread.
    """
    arguments = _clone_args.pack(_CLONE_INTO_CGROUP, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd)
    number = _numbers.get("clone3")
    if number is None:
        raise Unsupported(f"system call clone3 on {_machine}")
    python = ctypes.PyDLL(None, use_errno=True)
    clone3 = python.syscall
    clone3.restype = ctypes.c_long
    python.PyOS_BeforeFork()
    pid: int = clone3(_long(number), arguments, ctypes.c_size_t(len(arguments)))
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    error = ctypes.get_errno() if pid < 0 else 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise KernelError(error, "clone3")
    return pid
