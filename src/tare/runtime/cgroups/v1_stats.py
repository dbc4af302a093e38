"""Reads the counters of a v1 cgroup; writes nothing. A controller that is not mounted counts as zero."""

from __future__ import annotations

import os

from tare.kernel import cgroupfs
from tare.runtime.cgroups.convert import parse_limit
from tare.runtime.cgroups.stats import (
    BlkioEntry,
    BlkioStats,
    CgroupStats,
    CpuStats,
    HugetlbStats,
    MemoryStats,
    PidsStats,
)

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def read_stats(directories: dict[str, str]) -> CgroupStats:
    """All counters of one cgroup, given its directory in each controller's hierarchy."""
    return CgroupStats(
        version=1,
        cpu=_cpu(directories.get("cpuacct"), directories.get("cpu")),
        memory=_memory(directories.get("memory")),
        pids=_pids(directories.get("pids")),
        blkio=_blkio(directories.get("blkio")),
        hugetlb=_hugetlb(directories.get("hugetlb")),
    )


def _number(path: str) -> int:
    text = cgroupfs.read_if_present(path)
    return int(text) if text is not None and text.isdigit() else 0


def _cpu(cpuacct: str | None, cpu: str | None) -> CpuStats:
    total = user = system = 0
    per_cpu: tuple[int, ...] = ()
    if cpuacct:
        total = _number(cpuacct + "/cpuacct.usage")
        per_cpu = tuple(int(n) for n in (cgroupfs.read_if_present(cpuacct + "/cpuacct.usage_percpu") or "").split())
        ticks = cgroupfs.parse_flat(cgroupfs.read_if_present(cpuacct + "/cpuacct.stat") or "")
        user, system = ticks.get("user", 0) * _NS_PER_TICK, ticks.get("system", 0) * _NS_PER_TICK
    throttling = cgroupfs.parse_flat(cgroupfs.read_if_present(cpu + "/cpu.stat") or "") if cpu else {}
    return CpuStats(
        total_ns=total,
        user_ns=user,
        system_ns=system,
        per_cpu_ns=per_cpu,
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
    )


def _memory(directory: str | None) -> MemoryStats:
    if not directory:
        return MemoryStats()
    return MemoryStats(
        usage=_number(directory + "/memory.usage_in_bytes"),
        max_usage=_number(directory + "/memory.max_usage_in_bytes"),
        limit=parse_limit(cgroupfs.read_if_present(directory + "/memory.limit_in_bytes")),
        failcnt=_number(directory + "/memory.failcnt"),
        stats=cgroupfs.parse_flat(cgroupfs.read_if_present(directory + "/memory.stat") or ""),
    )


def _pids(directory: str | None) -> PidsStats:
    if not directory:
        return PidsStats()
    limit = parse_limit(cgroupfs.read_if_present(directory + "/pids.max"))
    return PidsStats(current=_number(directory + "/pids.current"), limit=limit)


def parse_blkio(text: str) -> tuple[BlkioEntry, ...]:
    """`8:0 Read 4096` lines; the closing `Total 4096` names no device and is left out."""
    entries: list[BlkioEntry] = []
    for line in text.split("\n"):
        words = line.split()
        if len(words) < 2 or ":" not in words[0] or not words[-1].isdigit():
            continue
        major, _, minor = words[0].partition(":")
        if major.isdigit() and minor.isdigit():
            entries.append(BlkioEntry(int(major), int(minor), words[1] if len(words) == 3 else "", int(words[-1])))
    return tuple(entries)


def _blkio(directory: str | None) -> BlkioStats:
    if not directory:
        return BlkioStats()

    def first(*names: str) -> tuple[BlkioEntry, ...]:
        for name in names:
            text = cgroupfs.read_if_present(f"{directory}/blkio.{name}")
            if text and (entries := parse_blkio(text)):
                return entries
        return ()

    # The bfq files count only devices that bfq schedules; the throttle files count every device.
    return BlkioStats(
        service_bytes=first("bfq.io_service_bytes_recursive", "throttle.io_service_bytes_recursive"),
        serviced=first("bfq.io_serviced_recursive", "throttle.io_serviced_recursive"),
        queued=first("bfq.io_queued_recursive", "io_queued_recursive"),
        service_time=first("bfq.io_service_time_recursive", "io_service_time_recursive"),
        wait_time=first("bfq.io_wait_time_recursive", "io_wait_time_recursive"),
        merged=first("bfq.io_merged_recursive", "io_merged_recursive"),
        time=first("bfq.time_recursive", "time_recursive"),
        sectors=first("bfq.sectors_recursive", "sectors_recursive"),
    )


def _hugetlb(directory: str | None) -> dict[str, HugetlbStats]:
    if not directory:
        return {}
    found: dict[str, HugetlbStats] = {}
    for name in sorted(os.listdir(directory)):
        parts = name.split(".")
        if len(parts) == 3 and parts[0] == "hugetlb" and parts[2] == "usage_in_bytes":
            stem = f"{directory}/hugetlb.{parts[1]}"
            found[parts[1]] = HugetlbStats(
                usage=_number(stem + ".usage_in_bytes"),
                max_usage=_number(stem + ".max_usage_in_bytes"),
                failcnt=_number(stem + ".failcnt"),
            )
    return found
