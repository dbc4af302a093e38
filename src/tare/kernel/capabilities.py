"""Capabilities: their names and numbers, and the calls that set a process's five sets. Decides none of them."""

from __future__ import annotations

import errno
import struct

from tare.errors import KernelError
from tare.kernel.libc import syscall

# In the order of their numbers (linux/capability.h).
NAMES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST"),
    *("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"),
    *("CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE"),
    *("CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE"),
    *("CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM"),
    *("CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}

_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_HEADER = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
_sets = struct.Struct("6I")


def mask(names: tuple[str, ...]) -> int:
    """The bits of the capabilities named."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def last_capability() -> int:
    """The highest capability number that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Sets this process's three classic sets, given as bits (capset(2))."""
    low = 0xFFFFFFFF
    data = _sets.pack(
        effective & low, permitted & low, inheritable & low, effective >> 32, permitted >> 32, inheritable >> 32
    )
    syscall("capset", _HEADER, data)


def capget() -> tuple[int, int, int]:
    """This process's effective, permitted and inheritable sets as bits."""
    buffer = bytearray(_sets.size)
    syscall("capget", _HEADER, buffer)
    e0, p0, i0, e1, p1, i1 = _sets.unpack(buffer)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def limit_bounding(keep: int) -> None:
    """Drops every capability that isn't in `keep` (bits) from the bounding set."""
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            syscall("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0, about=NAMES[number] if number < len(NAMES) else None)
        except KernelError as error:
            if error.errno == errno.EINVAL:  # beyond the last one that this kernel knows
                return
            raise


def set_ambient(bits: int) -> None:
    """Makes the ambient set exactly `bits`; each must be permitted and inheritable already (capabilities(7))."""
    syscall("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            syscall("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0, about=NAMES[number])
