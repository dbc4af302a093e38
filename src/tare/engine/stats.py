"""stats: what a container uses, once or every second."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import msgspec

from tare.engine.engine import Engine
from tare.engine.records import Container
from tare.errors import KernelError
from tare.runtime.cgroups import CgroupStats, open_cgroup
from tare.values.timestamps import now_ns

INTERVAL_S = 1.0
FIRST_INTERVAL_S = 1.0


class InterfaceCounters(msgspec.Struct, frozen=True):
    """What went through a network interface: bytes and packets received (rx) and sent (tx)."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class StatsReading(msgspec.Struct, frozen=True, kw_only=True):
    """Counters at one instant. system_cpu_ns: processor time of the whole machine. cgroup None: it doesn't run."""

    read_ns: int = 0
    system_cpu_ns: int = 0
    online_cpus: int = 0
    cgroup: CgroupStats | None = None
    networks: dict[str, InterfaceCounters] = {}


class StatsSample(msgspec.Struct, frozen=True, kw_only=True):
    """A reading and the one before it (an empty one at first)."""

    id: str
    name: str
    now: StatsReading
    before: StatsReading = StatsReading()
    memory_total_bytes: int = 0


async def container_stats(engine: Engine, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[StatsSample]:
    """Samples of a container's use: one (two readings a second apart, or one if one_shot), or one every second until
    the container is removed. Raises NotFound."""
    container = engine.containers.find(ref)
    return _samples(engine, container.id, stream, one_shot)


async def _samples(engine: Engine, container_id: str, stream: bool, one_shot: bool) -> AsyncIterator[StatsSample]:
    before = StatsReading()
    primed = one_shot or stream
    while (container := engine.containers.get(container_id)) is not None:
        now = read_now(engine, container)
        if primed or now.cgroup is None:
            yield StatsSample(
                id=container.id, name=container.name, now=now, before=before, memory_total_bytes=memory_total_bytes()
            )
            if not stream:
                return
        primed = True
        before = now if now.cgroup is not None else StatsReading()
        await asyncio.sleep(INTERVAL_S)


def read_now(engine: Engine, container: Container) -> StatsReading:
    """The counters of a container just now; an empty reading if it doesn't run."""
    live = engine.live.get(container.id)
    if live is None:
        return StatsReading()
    try:
        found = open_cgroup(engine.cgroup_path(container.id, container.host.cgroup_parent)).stats()
    except (OSError, KernelError):
        return StatsReading()
    return StatsReading(
        read_ns=now_ns(),
        system_cpu_ns=system_cpu_ns(),
        online_cpus=os.cpu_count() or 1,
        cgroup=found,
        networks=interface_counters(live.pid) if container.host.network_mode not in ("host", "none") else {},
    )


def system_cpu_ns() -> int:
    """Processor time that the machine has spent since boot, idle included: the first line of /proc/stat (proc(5))."""
    with open("/proc/stat", "rb") as file:
        fields = file.readline().split()[1:9]
    return sum(int(field) for field in fields) * (10**9 // os.sysconf("SC_CLK_TCK"))


def memory_total_bytes() -> int:
    """How much memory the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def interface_counters(pid: int) -> dict[str, InterfaceCounters]:
    """The counters of a process's network interfaces but the loopback: /proc/PID/net/dev."""
    found: dict[str, InterfaceCounters] = {}
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
            lines = file.readlines()[2:]
    except OSError:
        return found
    for line in lines:
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            continue
        values = [int(value) for value in rest.split()]
        found[name.strip()] = InterfaceCounters(*values[0:4], *values[8:12])
    return found
