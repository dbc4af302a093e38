"""One cgroup on a machine with v1 hierarchies and a v2 one that has the controllers left over.

v1 carries all that it can. The v2 directory is made only when a setting needs a controller that v1 lacks (huge pages,
mostly): entering a v2 cgroup costs the wait for RCU that entering v1's does not.
"""

from __future__ import annotations

import msgspec

from tare.oci.runtime_spec import LinuxCPU, LinuxResources
from tare.runtime.cgroups.hierarchies import Hierarchies, Hierarchy
from tare.runtime.cgroups.stats import CgroupStats
from tare.runtime.cgroups.v1 import CgroupV1
from tare.runtime.cgroups.v2 import CgroupV2
from tare.runtime.cgroups.v2_stats import read_hugetlb

# Field of LinuxResources, the controller that it needs in v1, and in v2.
_CARRIERS = (
    ("memory", "memory", "memory"),
    ("pids", "pids", "pids"),
    ("block_io", "blkio", "io"),
    ("hugepage_limits", "hugetlb", "hugetlb"),
    ("rdma", "rdma", "rdma"),
)


class CgroupHybrid:
    """v1's directories of one path, and v2's of the same path when something needs it."""

    def __init__(self, path: str, hierarchies: Hierarchies, v2: Hierarchy) -> None:
        self._v1 = CgroupV1(path, hierarchies)
        self._v1_controllers = {name for hierarchy in hierarchies.v1 for name in hierarchy.controllers}
        self._v2 = CgroupV2(path, v2)
        self._v2_controllers = set(v2.controllers)
        self._v2_directory = v2.base + path
        self._freeze_by_v2 = "freezer" not in self._v1_controllers
        # Counters that only v2 keeps need its directory from the start.
        self._always_v2 = self._freeze_by_v2 or any(
            v2_name in self._v2_controllers and v1_name not in self._v1_controllers
            for field, v1_name, v2_name in _CARRIERS
            if field in ("memory", "pids")
        )

    def create(self) -> None:
        """Makes the cgroup in v1's hierarchies, and in v2's if that keeps a counter or the freezer."""
        self._v1.create()
        if self._always_v2:
            self._v2.create()

    def apply(self, resources: LinuxResources) -> None:
        """Sets each limit where its controller is."""
        first, second = self._split(resources)
        self._v1.apply(first)
        if second != LinuxResources():
            self._v2.create()
            self._v2.apply(second)

    def _split(self, resources: LinuxResources) -> tuple[LinuxResources, LinuxResources]:
        for_v2: dict[str, object] = {}
        for field, v1_name, v2_name in _CARRIERS:
            value = getattr(resources, field)
            if value and v1_name not in self._v1_controllers and v2_name in self._v2_controllers:
                for_v2[field] = value
        if resources.unified:
            for_v2["unified"] = resources.unified
        if resources.devices and "devices" not in self._v1_controllers:
            for_v2["devices"] = resources.devices
        kept_cpu, moved_cpu = self._split_cpu(resources.cpu)
        first = msgspec.structs.replace(resources, **dict.fromkeys(for_v2), cpu=kept_cpu)
        return first, msgspec.structs.replace(LinuxResources(), **for_v2, cpu=moved_cpu)

    def _split_cpu(self, cpu: LinuxCPU | None) -> tuple[LinuxCPU | None, LinuxCPU | None]:
        """cpu and cpuset are two controllers under one field."""
        if cpu is None:
            return None, None
        time, places = msgspec.structs.replace(cpu, cpus="", mems=""), LinuxCPU(cpus=cpu.cpus, mems=cpu.mems)
        parts: tuple[list[LinuxCPU], list[LinuxCPU]] = ([], [])
        for part, name in ((time, "cpu"), (places, "cpuset")):
            in_v2 = name not in self._v1_controllers and name in self._v2_controllers
            parts[in_v2].append(part)
        if len(parts[0]) != 1:
            return (cpu, None) if parts[0] else (None, cpu)
        return parts[0][0], parts[1][0]

    def join(self) -> None:
        """Moves the calling process in."""
        self._v1.join()
        if self._v2.exists():
            self._v2.join()

    def attach(self, pid: int) -> None:
        """Moves another process in, with all its threads."""
        self._v1.attach(pid)
        if self._v2.exists():
            self._v2.attach(pid)

    def clone_fd(self) -> int | None:
        """None: v1 knows no CLONE_INTO_CGROUP; the child joins by itself."""
        return None

    def exists(self) -> bool:
        """Whether the cgroup is there in any hierarchy."""
        return self._v1.exists() or self._v2.exists()

    def pids(self) -> list[int]:
        """All processes of the cgroup and of those below it."""
        return self._v1.pids()

    def kill(self, signal: int) -> None:
        """Signals every process."""
        if self._freeze_by_v2 and self._v2.exists():
            self._v2.kill(signal)
        else:
            self._v1.kill(signal)

    def freeze(self) -> None:
        """Freezes every process; waits until all are."""
        self._freezer().freeze()

    def thaw(self) -> None:
        """Lets every process go on."""
        self._freezer().thaw()

    def frozen(self) -> bool:
        """Whether it is, or is becoming, frozen."""
        return self._freezer().frozen()

    def _freezer(self) -> CgroupV1 | CgroupV2:
        return self._v2 if self._freeze_by_v2 else self._v1

    def stats(self) -> CgroupStats:
        """All counters now: v1's, and v2's of what only v2 counts."""
        stats = self._v1.stats()
        if not self._v2.exists():
            return stats
        second = self._v2.stats()
        changes: dict[str, object] = {}
        if "memory" not in self._v1_controllers:
            changes.update(memory=second.memory, version=2)
        if "pids" not in self._v1_controllers:
            changes["pids"] = second.pids
        if "cpuacct" not in self._v1_controllers:
            changes["cpu"] = second.cpu
        if "hugetlb" not in self._v1_controllers:
            changes["hugetlb"] = read_hugetlb(self._v2_directory)
        return msgspec.structs.replace(stats, **changes)

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory here."""
        return self._v1.oom_kills() if "memory" in self._v1_controllers else self._v2.oom_kills()

    def remove(self) -> None:
        """Removes it from every hierarchy, with what is below; waits until it is empty."""
        self._v1.remove()
        self._v2.remove()

    def remove_if_empty(self) -> None:
        """Removes it where nothing is below or in it."""
        self._v1.remove_if_empty()
        self._v2.remove_if_empty()
