"""The flags that `run`, `create` and `update` share: what a container may use, and what can change later."""

from __future__ import annotations

from tare.cli.command import Flag
from tare.cli.flagkinds import parse_swap_bytes

LIMIT_FLAGS = (
    Flag("blkio-weight", "", "uint16", "Share of disk bandwidth, 10 to 1000, or 0 for none set"),
    Flag("cpu-period", "", "int64", "CFS period in microseconds"),
    Flag("cpu-quota", "", "int64", "CFS quota in microseconds"),
    Flag("cpu-rt-period", "", "int64", "Real-time period in microseconds"),
    Flag("cpu-rt-runtime", "", "int64", "Real-time run time in microseconds"),
    Flag("cpu-shares", "c", "int64", "Relative share of CPU time"),
    Flag("cpus", "", "decimal", "How many CPUs it can use (1.5)"),
    Flag("cpuset-cpus", "", "string", "CPUs it can run on (0-3, 0,1)"),
    Flag("cpuset-mems", "", "string", "Memory nodes it can use (0-3, 0,1)"),
    Flag("egress", "", "string", "What it may send to: none, all or allow=SUBNET|NAME[:PORT],... (Tare only)"),
    Flag("memory", "m", "bytes", "Memory limit"),
    Flag("memory-reservation", "", "bytes", "Soft memory limit"),
    Flag("memory-swap", "", "bytes", "Limit of memory plus swap; -1: no limit on swap", check=parse_swap_bytes),
    Flag("pids-limit", "", "int64", "How many processes it can have (-1: any number)"),
)


def in_order(*tables: tuple[Flag, ...]) -> tuple[Flag, ...]:
    """All of them, by name, as help shows them."""
    return tuple(sorted((flag for table in tables for flag in table), key=lambda flag: flag.name))
