"""Runs a classic BPF seccomp program in Python, as the kernel's interpreter would."""

from __future__ import annotations

import functools
import struct

X86_64 = 0xC000003E
X86 = 0x40000003
ALLOW = 0x7FFF0000
KILL = 0


def errno_return(number: int) -> int:
    return 0x00050000 | number


@functools.lru_cache(maxsize=16)
def _decode(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<HBBI", program))


def run(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """The program's verdict on one system call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    instructions = _decode(program)
    accumulator = counter = 0
    while True:
        code, jump_true, jump_false, constant = instructions[counter]
        counter += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, constant)[0]
            case 0x54:
                accumulator &= constant
            case 0x05:
                counter += constant
            case 0x15:
                counter += jump_true if accumulator == constant else jump_false
            case 0x25:
                counter += jump_true if accumulator > constant else jump_false
            case 0x35:
                counter += jump_true if accumulator >= constant else jump_false
            case 0x45:
                counter += jump_true if accumulator & constant else jump_false
            case 0x06:
                return constant
            case _:
                raise AssertionError(f"instruction {code:#x}")
