"""Cgroups behind one interface, whichever versions this machine has; runs between fork and exec too.

    cgroup = open_cgroup("/tare/<id>")
    cgroup.create(); cgroup.apply(resources); cgroup.join()     # … in the process that becomes the container
    cgroup.kill(SIGKILL); cgroup.remove()

A path is below the root of each hierarchy as it is mounted for us, beside our own cgroup and not inside it, as Docker
has it: in a container's own cgroup namespace that root is the container's cgroup. Where a v2 root is not ours to
write but our own cgroup is (systemd's `Delegate=`, a rootless user's session), the path is below that.
"""

from __future__ import annotations

from typing import Protocol

from tare.errors import Unsupported
from tare.oci.runtime_spec import LinuxResources
from tare.runtime.cgroups.check import Support, check_resources, detect_support
from tare.runtime.cgroups.hierarchies import (
    Hierarchies,
    Hierarchy,
    detect_hierarchies,
    known_hierarchies,
    validate_path,
)
from tare.runtime.cgroups.hybrid import CgroupHybrid
from tare.runtime.cgroups.stats import (
    BlkioEntry,
    BlkioStats,
    CgroupStats,
    CpuStats,
    HugetlbStats,
    MemoryStats,
    PidsStats,
)
from tare.runtime.cgroups.v1 import CgroupV1
from tare.runtime.cgroups.v2 import CgroupV2

__all__ = [
    "BlkioEntry",
    "BlkioStats",
    "Cgroup",
    "CgroupStats",
    "CpuStats",
    "Hierarchies",
    "Hierarchy",
    "HugetlbStats",
    "MemoryStats",
    "PidsStats",
    "Support",
    "check_resources",
    "detect_hierarchies",
    "detect_support",
    "known_hierarchies",
    "open_cgroup",
]


class Cgroup(Protocol):
    """One cgroup, in all hierarchies that are used. All its state is in the kernel; the object may be thrown away."""

    def create(self) -> None:
        """Makes it in every hierarchy; one that exists is kept."""

    def apply(self, resources: LinuxResources) -> None:
        """Sets the limits that are named, for a new cgroup or one in use; Unsupported where the kernel lacks one."""

    def join(self) -> None:
        """Moves the calling process in. Cheap from a single-threaded process on v1; see `clone_fd` for v2."""

    def attach(self, pid: int) -> None:
        """Moves another process in; may wait 5 to 30 ms for RCU."""

    def clone_fd(self) -> int | None:
        """v2: a descriptor for clone3(CLONE_INTO_CGROUP), to be closed by the caller. None: the child must `join`."""

    def exists(self) -> bool:
        """Whether the cgroup is there."""

    def pids(self) -> list[int]:
        """All processes in it and below."""

    def kill(self, signal: int) -> None:
        """Signals all processes in it and below; none escapes by forking. SIGKILL also ends frozen ones."""

    def freeze(self) -> None:
        """Stops all processes; returns when they are (Internal after 10 s)."""

    def thaw(self) -> None:
        """Lets them go on."""

    def frozen(self) -> bool:
        """Whether it is, or is becoming, frozen."""

    def stats(self) -> CgroupStats:
        """All counters."""

    def oom_kills(self) -> int:
        """Processes killed for want of memory since it was made. Gone with the cgroup: ask before `remove`."""

    def remove(self) -> None:
        """Removes it and those below; waits up to 10 s for the last process. One that is gone is no error."""

    def remove_if_empty(self) -> None:
        """Removes it unless something is below or in it (a parent that other engines may use); waits for nothing."""


def open_cgroup(path: str, hierarchies: Hierarchies | None = None) -> Cgroup:
    """The cgroup of a path such as `/tare/<id>`; neither made nor looked for yet."""
    validate_path(path)
    found = hierarchies or known_hierarchies()
    if found.v1 and found.v2:
        return CgroupHybrid(path, found, found.v2)
    if found.v1:
        return CgroupV1(path, found)
    if found.v2:
        return CgroupV2(path, found.v2)
    raise Unsupported("no cgroup file system is mounted")
