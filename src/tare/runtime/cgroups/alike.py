"""Limits whose files are the same in both versions of cgroups.

Never reads the spec's defaults into a limit: a field that is None is left as it is.
"""

from __future__ import annotations

from tare.kernel import cgroupfs
from tare.oci.runtime_spec import LinuxCPU, LinuxPids


def apply_cpuset(directory: str, cpu: LinuxCPU) -> None:
    """Which processors and memory nodes."""
    if cpu.cpus:
        cgroupfs.write(directory + "/cpuset.cpus", cpu.cpus)
    if cpu.mems:
        cgroupfs.write(directory + "/cpuset.mems", cpu.mems)


def apply_pids(directory: str, pids: LinuxPids) -> None:
    """The number of processes and threads."""
    if pids.limit is not None:
        cgroupfs.write(directory + "/pids.max", str(pids.limit) if pids.limit > 0 else "max")
