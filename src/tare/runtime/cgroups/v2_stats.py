"""Reads the counters of a v2 cgroup; writes nothing. A controller that is not enabled counts as zero."""

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

# io.stat's keys as Docker's clients know them from v1.
_SERVICE_BYTES = {"rbytes": "read", "wbytes": "write"}
_SERVICED = {"rios": "read", "wios": "write"}


def read_stats(directory: str) -> CgroupStats:
    """All counters of one cgroup."""
    return CgroupStats(
        version=2,
        cpu=_cpu(directory),
        memory=_memory(directory),
        pids=_pids(directory),
        blkio=parse_io_stat(cgroupfs.read_if_present(directory + "/io.stat") or ""),
        hugetlb=read_hugetlb(directory),
    )


def _number(path: str) -> int:
    text = cgroupfs.read_if_present(path)
    return int(text) if text is not None and text.isdigit() else 0


def _cpu(directory: str) -> CpuStats:
    values = cgroupfs.parse_flat(cgroupfs.read_if_present(directory + "/cpu.stat") or "")
    return CpuStats(
        total_ns=values.get("usage_usec", 0) * 1000,
        user_ns=values.get("user_usec", 0) * 1000,
        system_ns=values.get("system_usec", 0) * 1000,
        periods=values.get("nr_periods", 0),
        throttled_periods=values.get("nr_throttled", 0),
        throttled_ns=values.get("throttled_usec", 0) * 1000,
    )


def _memory(directory: str) -> MemoryStats:
    events = cgroupfs.parse_flat(cgroupfs.read_if_present(directory + "/memory.events") or "")
    return MemoryStats(
        usage=_number(directory + "/memory.current"),
        max_usage=_number(directory + "/memory.peak"),
        limit=parse_limit(cgroupfs.read_if_present(directory + "/memory.max")),
        failcnt=events.get("max", 0),
        stats=cgroupfs.parse_flat(cgroupfs.read_if_present(directory + "/memory.stat") or ""),
    )


def _pids(directory: str) -> PidsStats:
    limit = parse_limit(cgroupfs.read_if_present(directory + "/pids.max"))
    return PidsStats(current=_number(directory + "/pids.current"), limit=limit)


def parse_io_stat(text: str) -> BlkioStats:
    """`254:0 rbytes=1 wbytes=2 rios=3 wios=4 …` lines."""
    service_bytes: list[BlkioEntry] = []
    serviced: list[BlkioEntry] = []
    for line in text.split("\n"):
        device, _, counters = line.partition(" ")
        major, colon, minor = device.partition(":")
        if not (colon and major.isdigit() and minor.isdigit()):
            continue
        for counter in counters.split():
            key, _, value = counter.partition("=")
            if not value.isdigit():
                continue
            if key in _SERVICE_BYTES:
                service_bytes.append(BlkioEntry(int(major), int(minor), _SERVICE_BYTES[key], int(value)))
            elif key in _SERVICED:
                serviced.append(BlkioEntry(int(major), int(minor), _SERVICED[key], int(value)))
    return BlkioStats(service_bytes=tuple(service_bytes), serviced=tuple(serviced))


def read_hugetlb(directory: str) -> dict[str, HugetlbStats]:
    """Huge pages by size. failcnt: the number of refusals, in hugetlb.<size>.events."""
    found: dict[str, HugetlbStats] = {}
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return found
    for name in names:
        parts = name.split(".")
        if len(parts) == 3 and parts[0] == "hugetlb" and parts[2] == "current":
            stem = f"{directory}/hugetlb.{parts[1]}"
            events = cgroupfs.parse_flat(cgroupfs.read_if_present(stem + ".events") or "")
            found[parts[1]] = HugetlbStats(usage=_number(stem + ".current"), failcnt=events.get("max", 0))
    return found
