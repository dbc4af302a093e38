"""bpf(2) for device programs on cgroup2 directories: load, attach, query, detach. Knows no device and no policy."""

from __future__ import annotations

import os
import struct

from tare.kernel.libc import address_of, syscall

# enum bpf_cmd, bpf_prog_type, bpf_attach_type and flags of linux/bpf.h.
_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_F_ALLOW_MULTI = 2
_MAX_PROGRAMS = 64  # the kernel's own limit (BPF_CGROUP_MAX_PROGS)

_load_attributes = struct.Struct("=IIQQIIQII16sII")
_attach_attributes = struct.Struct("=IIIII")
_query_attributes = struct.Struct("=IIIIQI4x")


def load_device_program(instructions: bytes) -> int:
    """Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE; a close-on-exec descriptor of it."""
    code = bytearray(instructions)
    license_name = bytearray(b"Apache-2.0\0")
    attributes = bytearray(
        _load_attributes.pack(
            *(_PROG_TYPE_CGROUP_DEVICE, len(code) // 8, address_of(code), address_of(license_name)),
            *(0, 0, 0, 0, 0, b"tare_devices", 0, _CGROUP_DEVICE),
        )
    )
    return syscall("bpf", _PROG_LOAD, attributes, len(attributes), about="device program")


def attach_device_program(cgroup_fd: int, program_fd: int) -> None:
    """Attaches beside those already there: an access needs the consent of all of them, here and above."""
    attributes = bytearray(_attach_attributes.pack(cgroup_fd, program_fd, _CGROUP_DEVICE, _F_ALLOW_MULTI, 0))
    syscall("bpf", _PROG_ATTACH, attributes, len(attributes), about="device program")


def query_device_programs(cgroup_fd: int) -> list[int]:
    """The ids of the programs attached to this very cgroup."""
    ids = bytearray(4 * _MAX_PROGRAMS)
    attributes = bytearray(_query_attributes.pack(cgroup_fd, _CGROUP_DEVICE, 0, 0, address_of(ids), _MAX_PROGRAMS))
    syscall("bpf", _PROG_QUERY, attributes, len(attributes), about="device program")
    count: int = _query_attributes.unpack(attributes)[5]
    return list(struct.unpack_from(f"={count}I", ids))


def detach_device_program(cgroup_fd: int, program_id: int) -> None:
    """Detaches one program by its id; its last user gone, the kernel frees it."""
    by_id = bytearray(struct.pack("=III", program_id, 0, 0))
    program_fd = syscall("bpf", _PROG_GET_FD_BY_ID, by_id, len(by_id), about="device program")
    try:
        attributes = bytearray(_attach_attributes.pack(cgroup_fd, program_fd, _CGROUP_DEVICE, 0, 0))
        syscall("bpf", _PROG_DETACH, attributes, len(attributes), about="device program")
    finally:
        os.close(program_fd)
