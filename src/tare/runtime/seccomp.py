"""Seccomp: Docker's profile format to OCI rules, and those to a BPF program, cached by digest.

Needs no libseccomp: loading that in Python runs ldconfig, and a daemon that never forks may not.
"""

from __future__ import annotations

import functools
import hashlib
import os
from typing import Literal

import msgspec

from tare.errors import InvalidArgument, Unsupported
from tare.oci.runtime_spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction
from tare.runtime.seccomp_compile import COMPILER_VERSION, compile_rules

_PROFILE_PATH = os.path.dirname(__file__) + "/profiles/seccomp-default.json"
_MAX_PROFILE_BYTES = 1 << 20
_DIGEST_BYTES = 32

# Docker's word for a machine, and libseccomp's.
_ARCH_BY_MACHINE = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "386",
    "armv7l": "arm",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
_SECCOMP_ARCH = {
    "amd64": "SCMP_ARCH_X86_64",
    "arm64": "SCMP_ARCH_AARCH64",
    "386": "SCMP_ARCH_X86",
    "arm": "SCMP_ARCH_ARM",
    "riscv64": "SCMP_ARCH_RISCV64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390x": "SCMP_ARCH_S390X",
}
# linux/seccomp.h; TSYNC means nothing here, as the process has one thread.
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}


class _Filter(msgspec.Struct, frozen=True, rename="camel"):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = None


class _Syscall(msgspec.Struct, frozen=True, rename="camel"):
    action: SeccompAction
    names: tuple[str, ...] | None = None
    name: str = ""
    errno_ret: int | None = None
    args: tuple[LinuxSeccompArg, ...] | None = None
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _Architecture(msgspec.Struct, frozen=True, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(msgspec.Struct, frozen=True, rename="camel"):
    default_action: SeccompAction | Literal[""] = ""
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] | None = None
    arch_map: tuple[_Architecture, ...] | None = None
    flags: tuple[str, ...] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[_Syscall, ...] | None = None


@functools.cache
def default_profile() -> bytes:
    """Docker's default profile, as JSON."""
    with open(_PROFILE_PATH, "rb") as file:
        return file.read()


def native_arch() -> str:
    """This machine's architecture as Docker and its profiles name it."""
    machine = os.uname().machine
    return _ARCH_BY_MACHINE.get(machine, machine)


def resolve_profile(
    profile_json: bytes,
    capabilities: frozenset[str],
    arch: str | None = None,
    kernel_version: str | None = None,
) -> LinuxSeccomp | None:
    """The rules of a profile for one container: those whose conditions hold. None for a profile that asks for none.

    capabilities: the container's bounding set. arch and kernel_version: this machine's unless given.
    """
    if len(profile_json) > _MAX_PROFILE_BYTES:
        raise InvalidArgument("Decoding seccomp profile failed: profile is larger than 1 MiB")
    return _resolve(profile_json, capabilities, arch or native_arch(), kernel_version or os.uname().release)


@functools.lru_cache(maxsize=64)
def _resolve(profile_json: bytes, capabilities: frozenset[str], arch: str, kernel_version: str) -> LinuxSeccomp | None:
    try:
        profile = msgspec.json.decode(profile_json, type=_Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    kernel = _parse_kernel(kernel_version)
    if not profile.default_action:
        if not profile.syscalls:
            return None
        raise InvalidArgument("Decoding seccomp profile failed: no defaultAction")
    if profile.architectures and profile.arch_map:
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile,"
            " use either 'architectures' or 'archMap'"
        )
    return LinuxSeccomp(
        default_action=profile.default_action,
        default_errno_ret=profile.default_errno_ret,
        architectures=profile.architectures or _architectures(profile, arch),
        flags=profile.flags,
        listener_path=profile.listener_path,
        listener_metadata=profile.listener_metadata,
        syscalls=tuple(_plain(call) for call in profile.syscalls or () if _applies(call, capabilities, arch, kernel)),
    )


def _architectures(profile: _Profile, arch: str) -> tuple[str, ...] | None:
    for entry in profile.arch_map or ():
        if entry.architecture == _SECCOMP_ARCH.get(arch):
            return (entry.architecture, *(entry.sub_architectures or ()))
    return None


def _plain(call: _Syscall) -> LinuxSyscall:
    if call.name and call.names:
        raise InvalidArgument(
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
        )
    names = (call.name,) if call.name else call.names or ()
    return LinuxSyscall(names=names, action=call.action, errno_ret=call.errno_ret, args=call.args)


def _applies(call: _Syscall, capabilities: frozenset[str], arch: str, kernel: tuple[int, int]) -> bool:
    excludes, includes = call.excludes, call.includes
    if excludes is not None:
        if arch in (excludes.arches or ()) or not capabilities.isdisjoint(excludes.caps or ()):
            return False
        if excludes.min_kernel is not None and kernel >= _parse_kernel(excludes.min_kernel):
            return False
    if includes is not None:
        if includes.arches and arch not in includes.arches:
            return False
        if not capabilities.issuperset(includes.caps or ()):
            return False
        if includes.min_kernel is not None and kernel < _parse_kernel(includes.min_kernel):
            return False
    return True


def _parse_kernel(text: str) -> tuple[int, int]:
    """The first two numbers of a release such as `6.18.44-rc1`."""
    major, _, rest = text.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not (major.isdecimal() and minor.isdecimal() and len(major) < 10 and len(minor) < 10):
        raise InvalidArgument(f"invalid kernel version: {text!r}")
    return int(major), int(minor)


def filter_flags(seccomp: LinuxSeccomp) -> int:
    """The flags for seccomp(2). With none given, SPEC_ALLOW, as runc sets it: no slow-down against Spectre v4."""
    if seccomp.flags is None:
        return _FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    bits = 0
    for flag in seccomp.flags:
        if flag not in _FLAGS:
            raise InvalidArgument(f"seccomp flag {flag!r} is not known to this engine")
        bits |= _FLAGS[flag]
    return bits & ~_FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]


_compiled: dict[bytes, bytes] = {}
_MAX_COMPILED = 64


def compile_filter(seccomp: LinuxSeccomp, cache_dir: str | None = None) -> bytes:
    """The BPF program (struct sock_filter array) for the rules; from memory, from `cache_dir`, or compiled."""
    rules = msgspec.json.encode(seccomp)
    program = _compiled.get(rules)
    if program is not None:
        return program
    path = f"{cache_dir}/{_cache_name(rules)}" if cache_dir is not None else None
    program = _read_cached(path) if path else None
    if program is None:
        if seccomp.listener_path or _asks_listener(seccomp):
            raise Unsupported("seccomp action SCMP_ACT_NOTIFY")
        program = compile_rules(seccomp, _SECCOMP_ARCH.get(native_arch(), ""))
        if path:
            _write_cached(path, program)
    if len(_compiled) >= _MAX_COMPILED:
        _compiled.clear()
    _compiled[rules] = program
    return program


def _asks_listener(seccomp: LinuxSeccomp) -> bool:
    return seccomp.default_action == "SCMP_ACT_NOTIFY" or any(
        call.action == "SCMP_ACT_NOTIFY" for call in seccomp.syscalls or ()
    )


def _cache_name(rules: bytes) -> str:
    salt = f"{COMPILER_VERSION} {os.uname().machine}\n".encode()
    return f"seccomp-{hashlib.sha256(salt + rules).hexdigest()}.bpf"


def _read_cached(path: str) -> bytes | None:
    """A cached program; None if there is none or its checksum is wrong (a torn write after a crash)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(fd, "rb") as file:
        content = file.read(1 << 16)
    digest, program = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if not program or len(program) % 8 or hashlib.sha256(program).digest() != digest:
        return None
    return program


def _write_cached(path: str, program: bytes) -> None:
    """Writes aside and renames. A cache that can't be written costs time only, so that is no failure."""
    aside = f"{path}.{os.getpid()}"
    try:
        with open(aside, "wb") as file:
            file.write(hashlib.sha256(program).digest() + program)
        os.replace(aside, path)
    except OSError:
        pass
