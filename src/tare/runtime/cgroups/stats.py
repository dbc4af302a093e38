"""What a cgroup has used, as records: all that Docker's `stats` shows. Nothing here reads a file."""

from __future__ import annotations

import msgspec


class CpuStats(msgspec.Struct, frozen=True):
    """Processor time in nanoseconds. per_cpu_ns is empty on cgroup v2, which does not count it."""

    total_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    per_cpu_ns: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


class MemoryStats(msgspec.Struct, frozen=True):
    """Bytes. limit: None where there is none. stats: the kernel's own memory.stat. max_usage: 0 where not counted."""

    usage: int = 0
    max_usage: int = 0
    limit: int | None = None
    failcnt: int = 0
    stats: dict[str, int] = {}


class PidsStats(msgspec.Struct, frozen=True):
    """Processes and threads. limit: None where there is none."""

    current: int = 0
    limit: int | None = None


class BlkioEntry(msgspec.Struct, frozen=True):
    """One counter of one block device. op: Read, Write, Sync, Async, Discard or Total, as the kernel spells it."""

    major: int
    minor: int
    op: str
    value: int


class BlkioStats(msgspec.Struct, frozen=True):
    """Block device counters, of the cgroup and all below it."""

    service_bytes: tuple[BlkioEntry, ...] = ()
    serviced: tuple[BlkioEntry, ...] = ()
    queued: tuple[BlkioEntry, ...] = ()
    service_time: tuple[BlkioEntry, ...] = ()
    wait_time: tuple[BlkioEntry, ...] = ()
    merged: tuple[BlkioEntry, ...] = ()
    time: tuple[BlkioEntry, ...] = ()
    sectors: tuple[BlkioEntry, ...] = ()


class HugetlbStats(msgspec.Struct, frozen=True):
    """Huge pages of one size, in bytes."""

    usage: int = 0
    max_usage: int = 0
    failcnt: int = 0


class CgroupStats(msgspec.Struct, frozen=True):
    """All counters of one cgroup. version: of the hierarchy that counts memory, since Docker's JSON differs by it."""

    version: int
    cpu: CpuStats = CpuStats()
    memory: MemoryStats = MemoryStats()
    pids: PidsStats = PidsStats()
    blkio: BlkioStats = BlkioStats()
    hugetlb: dict[str, HugetlbStats] = {}
