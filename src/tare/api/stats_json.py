"""What a container uses in Docker's JSON, whose memory and block fields differ by cgroup version. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from tare.engine.stats import StatsReading, StatsSample
from tare.values.timestamps import format_rfc3339

_BLKIO = {
    "io_service_bytes_recursive": "service_bytes",
    "io_serviced_recursive": "serviced",
    "io_queue_recursive": "queued",
    "io_service_time_recursive": "service_time",
    "io_wait_time_recursive": "wait_time",
    "io_merged_recursive": "merged",
    "io_time_recursive": "time",
    "sectors_recursive": "sectors",
}


def _cpu(reading: StatsReading) -> dict[str, Any]:
    cpu = reading.cgroup.cpu if reading.cgroup else None
    usage: dict[str, Any] = {"total_usage": cpu.total_ns if cpu else 0}
    if cpu and cpu.per_cpu_ns:
        usage["percpu_usage"] = list(cpu.per_cpu_ns)
    usage["usage_in_kernelmode"] = cpu.system_ns if cpu else 0
    usage["usage_in_usermode"] = cpu.user_ns if cpu else 0
    made: dict[str, Any] = {"cpu_usage": usage}
    if reading.system_cpu_ns:
        made["system_cpu_usage"] = reading.system_cpu_ns
    if reading.online_cpus:
        made["online_cpus"] = reading.online_cpus
    made["throttling_data"] = {
        "periods": cpu.periods if cpu else 0,
        "throttled_periods": cpu.throttled_periods if cpu else 0,
        "throttled_time": cpu.throttled_ns if cpu else 0,
    }
    return made


def _memory(reading: StatsReading, total_bytes: int) -> dict[str, Any]:
    found = reading.cgroup
    if found is None:
        return {}
    memory = found.memory
    made: dict[str, Any] = {"usage": memory.usage}
    if found.version == 1 and memory.max_usage:
        made["max_usage"] = memory.max_usage
    made["stats"] = dict(memory.stats)
    if memory.failcnt:
        made["failcnt"] = memory.failcnt
    made["limit"] = min(memory.limit, total_bytes) if memory.limit is not None else total_bytes
    return made


def _blkio(reading: StatsReading) -> dict[str, Any]:
    """On cgroup v2 there are bytes and operations only; the rest is null, as Docker has it."""
    found = reading.cgroup
    made: dict[str, Any] = {}
    for key, field in _BLKIO.items():
        entries = [msgspec.structs.asdict(entry) for entry in getattr(found.blkio, field)] if found else []
        counted = found is not None and (found.version == 1 or field in ("service_bytes", "serviced"))
        made[key] = entries if counted else None
    return made


def stats_json(sample: StatsSample, version: tuple[int, int]) -> dict[str, Any]:
    """One sample."""
    found = sample.now.cgroup
    pids: dict[str, Any] = {}
    if found is not None:
        pids["current"] = found.pids.current
        if found.pids.limit is not None:
            pids["limit"] = found.pids.limit
    made: dict[str, Any] = {
        "read": format_rfc3339(sample.now.read_ns),
        "preread": format_rfc3339(sample.before.read_ns),
        "pids_stats": pids,
        "blkio_stats": _blkio(sample.now),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(sample.now),
        "precpu_stats": _cpu(sample.before),
        "memory_stats": _memory(sample.now, sample.memory_total_bytes),
        "name": f"/{sample.name}",
        "id": sample.id,
    }
    if sample.now.networks:
        made["networks"] = {name: msgspec.structs.asdict(counted) for name, counted in sample.now.networks.items()}
    if version >= (1, 49):
        made["os_type"] = "linux"
    return made
