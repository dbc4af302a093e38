"""What `tare stats` shows of one reading: CPU, memory, network and disk of a container."""

from __future__ import annotations

from tare.cli.listing import Row
from tare.cli.units import format_binary_size, format_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
HEADERS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}


def cpu_percent(now: dict[str, Any], before: dict[str, Any]) -> float:
    """CPU time since the reading before, as a share of one CPU's."""
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    count = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or [])
    return used / passed * count * 100 if used > 0 and passed > 0 else 0.0


def memory_used(memory: dict[str, Any]) -> int:
    """Usage without the page cache that the kernel would give back (cgroup v1 and v2 name it differently)."""
    usage: int = memory.get("usage", 0)
    details = memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        if name in details:
            inactive: int = details[name]
            return usage - inactive if inactive < usage else usage
    return usage


def _disk(reading: dict[str, Any]) -> tuple[int, int]:
    read = written = 0
    for item in (reading.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        operation = item.get("op", "").lower()[:1]
        if operation == "r":
            read += item["value"]
        elif operation == "w":
            written += item["value"]
    return read, written


def stats_row(container: str, reading: dict[str, Any], full: bool) -> Row:
    memory = reading.get("memory_stats") or {}
    used, limit = memory_used(memory), memory.get("limit", 0)
    identity = reading.get("id", "")
    networks = (reading.get("networks") or {}).values()
    received = sum(item["rx_bytes"] for item in networks)
    sent = sum(item["tx_bytes"] for item in networks)
    read, written = _disk(reading)
    percent = cpu_percent(reading["cpu_stats"], reading["precpu_stats"])
    fields = {
        "Container": lambda: container,
        "ID": lambda: identity if full else short_id(identity),
        "Name": lambda: reading.get("name", "").removeprefix("/") or "--",
        "CPUPerc": lambda: f"{percent:.2f}%",
        "MemUsage": lambda: f"{format_binary_size(used)} / {format_binary_size(limit)}",
        "MemPerc": lambda: f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": lambda: f"{format_size(received, 3)} / {format_size(sent, 3)}",
        "BlockIO": lambda: f"{format_size(read, 3)} / {format_size(written, 3)}",
        "PIDs": lambda: str((reading.get("pids_stats") or {}).get("current", 0)),
    }
    return Row("*container.statsContext", fields)
