"""A static program of a few bytes that makes one system call and exits with its errno; needs no compiler (x86-64)."""

from __future__ import annotations

import platform
import struct

IS_POSSIBLE = platform.machine() == "x86_64"
_ADDRESS = 0x400000
_HEADERS = 64 + 56
_EXIT = b"\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05"  # mov edi, eax; mov eax, 60; syscall


def _elf(code: bytes) -> bytes:
    """An ELF file whose only segment is the code, readable and executable."""
    size = _HEADERS + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    return ident + header + segment + code


def call(number: int, *arguments: int) -> bytes:
    """A program that makes the call by `syscall`; it exits 0 where it succeeded, with the errno where not."""
    moves = (b"\x48\xc7\xc7", b"\x48\xc7\xc6", b"\x48\xc7\xc2", b"\x49\xc7\xc2", b"\x49\xc7\xc0", b"\x49\xc7\xc1")
    code = b"\x48\xc7\xc0" + struct.pack("<i", number)
    for move, argument in zip(moves, arguments, strict=False):
        code += move + struct.pack("<i", argument)
    code += b"\x0f\x05" + b"\x48\xf7\xd8"  # syscall; neg rax
    code += b"\x48\x85\xc0\x7f\x02\x31\xc0"  # test rax, rax; jg over; xor eax, eax
    return _elf(code + _EXIT)


def call_i386(number: int, *arguments: int, table: tuple[int, ...] = ()) -> bytes:
    """The same by `int 0x80`, the 32-bit entry; `table` lies in memory, its address is the last argument."""
    registers = (b"\xbb", b"\xb9", b"\xba", b"\xbe", b"\xbf")
    count = len(arguments) + bool(table)
    length = 5 * (1 + count) + 2 + 2 + 6 + len(_EXIT)
    if table:
        arguments = (*arguments, _ADDRESS + _HEADERS + length)
    code = b"\xb8" + struct.pack("<i", number)
    for register, argument in zip(registers, arguments, strict=False):
        code += register + struct.pack("<i", argument)
    code += b"\xcd\x80" + b"\xf7\xd8" + b"\x85\xc0\x7f\x02\x31\xc0" + _EXIT
    return _elf(code + struct.pack(f"<{len(table)}i", *table))
