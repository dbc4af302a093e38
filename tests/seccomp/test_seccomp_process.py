"""Real processes under the default profile, with Docker's default capabilities."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tare.kernel.process import load_seccomp_filter, set_no_new_privileges
from tare.oci.runtime_spec import LinuxSeccomp
from tare.runtime.seccomp import compile_filter, default_profile, filter_flags, resolve_profile

DEFAULT_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
        *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)
x86_64_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers and code of x86_64")
CLONE_NEWUSER, CLONE_NEWNET, SIGCHLD = 0x10000000, 0x40000000, 17


def default_rules(*more: str) -> LinuxSeccomp:
    rules = resolve_profile(default_profile(), DEFAULT_CAPABILITIES | set(more))
    assert rules is not None
    return rules


def under(rules: LinuxSeccomp, action: Callable[[], object]) -> object:
    """What `action` returns, run in a child under the rules."""
    program, flags = compile_filter(rules), filter_flags(rules)
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            set_no_new_privileges()
            load_seccomp_filter(program, flags)
            os.write(write_fd, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        answer = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(answer)


def call(number: int, *arguments: int | bytes) -> int:
    """The errno of a system call, 0 if it worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    wide = [argument if isinstance(argument, bytes) else ctypes.c_ulong(argument) for argument in arguments]
    return 0 if libc.syscall(ctypes.c_long(number), *wide) >= 0 else ctypes.get_errno()


@x86_64_only
@pytest.mark.parametrize(
    ("name", "number", "arguments", "error"),
    [
        ("getpid", 39, (), 0),
        ("umask", 95, (0o22,), 0),
        ("chroot", 161, (b"/\0",), 0),
        ("socket AF_UNIX", 41, (1, 1, 0), 0),
        ("socket AF_INET", 41, (2, 1, 0), 0),
        ("socket AF_ALG", 41, (38, 5, 0), errno.EPERM),
        ("socket AF_VSOCK", 41, (40, 1, 0), errno.EPERM),
        ("socket AF_ALG, upper half set", 41, (38 | 1 << 32, 5, 0), errno.EPERM),
        ("mount", 165, (0, 0, 0, 0, 0), errno.EPERM),
        ("umount2", 166, (0, 0), errno.EPERM),
        ("unshare user", 272, (CLONE_NEWUSER,), errno.EPERM),
        ("unshare 0", 272, (0,), errno.EPERM),
        ("setns", 308, (0, 0), errno.EPERM),
        ("clone with a user namespace", 56, (CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), errno.EPERM),
        ("clone with a network namespace", 56, (CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0), errno.EPERM),
        ("clone3", 435, (0, 0), errno.ENOSYS),
        ("bpf", 321, (0, 0, 0), errno.EPERM),
        ("keyctl", 250, (0, 0, 0), errno.EPERM),
        ("init_module", 175, (0, 0, 0), errno.EPERM),
        ("kexec_load", 246, (0, 0, 0, 0), errno.EPERM),
        ("open_by_handle_at", 304, (0, 0, 0), errno.EPERM),
        ("io_uring_setup", 425, (1, 0), errno.EPERM),
        ("personality of today", 135, (0xFFFFFFFF,), 0),
        ("personality without randomisation", 135, (0x0040000,), errno.EPERM),
        ("a call newer than the profile", 499, (), errno.ENOSYS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_call_under_the_default_profile(name: str, number: int, arguments: tuple[int | bytes, ...], error: int) -> None:
    """What Docker's users may do and may not (CVE-2026-31431 for AF_ALG)."""
    assert under(default_rules(), lambda: call(number, *arguments)) == error


@x86_64_only
def test_capability_opens_its_calls() -> None:
    """With CAP_SYS_ADMIN mount reaches the kernel, which then finds its arguments bad."""
    rules = default_rules("CAP_SYS_ADMIN")
    assert under(rules, lambda: call(165, 0, b"/nonexistent\0", 0, 0, 0)) == errno.ENOENT


def test_ordinary_work_goes_on() -> None:
    """Fork, threads, exec, files and pipes work under the default profile."""

    def work() -> object:
        import subprocess
        import threading

        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append("thread"))
        thread.start()
        thread.join()
        seen.append(subprocess.run(["/bin/echo", "exec"], capture_output=True, check=True).stdout.decode().strip())
        seen.append(str(len(os.listdir("/proc/self")) > 10))
        return seen

    assert under(default_rules(), work) == ["thread", "exec", "True"]


def i386_program(path: Path, number: int, *arguments: int) -> str:
    """A program that makes one 32-bit system call and exits with -result: 1 for EPERM, 253 for descriptor 3."""
    code = b"\xb8" + struct.pack("<I", number)
    for opcode, argument in zip((b"\xbb", b"\xb9", b"\xba"), (*arguments, 0, 0, 0), strict=False):
        code += opcode + struct.pack("<I", argument & 0xFFFFFFFF)
    code += b"\xcd\x80\xf7\xd8\x89\xc3\xb8\x01\x00\x00\x00\xcd\x80"
    base, size = 0x08048000, 84 + len(code)
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    header += struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000)
    path.write_bytes(header + code)
    path.chmod(0o755)
    return str(path)


def exit_code(program: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(program, [program])
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@x86_64_only
@pytest.mark.parametrize(
    ("number", "arguments", "code"),
    [
        (359, (1, 1, 0), None),  # socket AF_UNIX
        (359, (38, 5, 0), errno.EPERM),
        (359, (40, 1, 0), errno.EPERM),
        (21, (0, 0, 0), errno.EPERM),  # mount
        (310, (CLONE_NEWUSER,), errno.EPERM),  # unshare
        (435, (0, 0), errno.ENOSYS),  # clone3
    ],
)
def test_32_bit_calls_are_filtered_too(
    tmp_path: Path, number: int, arguments: tuple[int, ...], code: int | None
) -> None:
    """A 32-bit program has its own numbers for the same calls, and the same rules."""
    program = i386_program(tmp_path / "program", number, *arguments)
    if exit_code(i386_program(tmp_path / "probe", 9999)) != errno.ENOSYS:
        pytest.skip("this kernel runs no 32-bit programs")
    got = under(default_rules(), lambda: exit_code(program))
    assert got == code if code is not None else int(str(got)) > 200
