"""Compiles a device policy to eBPF and puts it on a v2 cgroup, which has no device files of its own.

The kernel runs the program at each mknod and each open of a device node and takes 0 as EPERM
(Documentation/admin-guide/cgroup-v2.rst, "Device controller"). Nothing here decides what is allowed.

    r2 = type asked for, r3 = access asked for, r4 = major, r5 = minor
    for each exception:  does it match?  → return the opposite of the default
    return the default
"""

from __future__ import annotations

import errno
import os
import struct

from tare.errors import KernelError
from tare.kernel import bpf
from tare.oci.runtime_spec import LinuxDeviceCgroup
from tare.runtime.cgroups.devices import DevicePolicy, resolve_rules

# struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, access_type = access << 16 | type.
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = 7

_LOAD_U32 = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_MOVE = 0xB4  # BPF_ALU | BPF_MOV | BPF_K
_COPY = 0xBC  # BPF_ALU | BPF_MOV | BPF_X
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_UNEQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_EXIT = 0x95
_MAX_INT32 = 0x7FFFFFFF

Instruction = tuple[int, int, int, int, int]  # code, destination, source, offset, immediate


def _pack(instructions: list[Instruction]) -> bytes:
    return b"".join(
        struct.pack("=BBhi", code, source << 4 | destination, offset, immediate)
        for code, destination, source, offset, immediate in instructions
    )


def _match(
    device: tuple[str, int | None, int | None], access: frozenset[str], whole: bool, verdict: int
) -> list[Instruction]:
    """Returns `verdict` if the request is for this device. whole: all that is asked must be in `access`, else any."""
    kind, major, minor = device
    bits = sum(_ACCESS[letter] for letter in access)
    # Each test: the instructions before the jump, then (code, register, value) of a jump past this block.
    tests: list[tuple[list[Instruction], int, int, int]] = [([], _JUMP_UNEQUAL, 2, _TYPES[kind])]
    if bits != _ALL_ACCESS:
        mask = _ALL_ACCESS & ~bits if whole else bits
        jump = _JUMP_UNEQUAL if whole else _JUMP_EQUAL
        tests.append(([(_COPY, 1, 3, 0, 0), (_AND, 1, 0, 0, mask)], jump, 1, 0))
    if major is not None:
        tests.append(([], _JUMP_UNEQUAL, 4, major))
    if minor is not None:
        tests.append(([], _JUMP_UNEQUAL, 5, minor))
    ending: list[Instruction] = [(_MOVE, 0, 0, 0, verdict), (_EXIT, 0, 0, 0, 0)]
    block = ending
    for before, code, register, value in reversed(tests):
        block = [*before, (code, register, 0, len(block), value), *block]
    return block


def compile_policy(policy: DevicePolicy) -> bytes:
    """The program's instructions. A device with a number beyond 31 bits can't exist, so its exception is left out."""
    default = int(policy.allow_by_default)
    program: list[Instruction] = [
        (_LOAD_U32, 2, 1, 0, 0),
        (_AND, 2, 0, 0, 0xFFFF),
        (_LOAD_U32, 3, 1, 0, 0),
        (_SHIFT_RIGHT, 3, 0, 0, 16),
        (_LOAD_U32, 4, 1, 4, 0),
        (_LOAD_U32, 5, 1, 8, 0),
    ]
    for device, access in policy.exceptions.items():
        if all(number is None or number <= _MAX_INT32 for number in device[1:] if not isinstance(number, str)):
            program += _match(device, access, not policy.allow_by_default, 1 - default)
    program += [(_MOVE, 0, 0, 0, default), (_EXIT, 0, 0, 0, 0)]
    return _pack(program)


def restrict_devices(directory: str, rules: tuple[LinuxDeviceCgroup, ...]) -> None:
    """Makes `rules` the cgroup's device rules, in place of those that a former call set."""
    program_fd = bpf.load_device_program(compile_policy(resolve_rules(rules)))
    try:
        try:
            cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, "open", directory) from error
        try:
            old = bpf.query_device_programs(cgroup_fd)
            # New first, old off after: at no moment is more allowed than by one of the two.
            bpf.attach_device_program(cgroup_fd, program_fd)
            for program_id in old:
                bpf.detach_device_program(cgroup_fd, program_id)
        finally:
            os.close(cgroup_fd)
    finally:
        os.close(program_fd)
