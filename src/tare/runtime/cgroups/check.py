"""Which limits this kernel can't keep: dropped with Docker's warning before a container is made of them.

Decides by the files that the kernel shows, changes nothing. `apply` raises for what slips through.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import msgspec

from tare.errors import InvalidArgument
from tare.kernel import cgroupfs
from tare.oci.runtime_spec import LinuxBlockIO, LinuxCPU, LinuxMemory, LinuxResources
from tare.runtime.cgroups.convert import UNLIMITED, parse_cpu_list
from tare.runtime.cgroups.hierarchies import Hierarchies, Hierarchy, known_hierarchies
from tare.runtime.cgroups.v1_controllers import SWAP_UNSUPPORTED

MEMORY_UNSUPPORTED = (
    "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."
)
SWAPPINESS_UNSUPPORTED = (
    "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted."
    " Memory swappiness discarded."
)
RESERVATION_UNSUPPORTED = (
    "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded."
)
OOM_KILL_UNSUPPORTED = "Your kernel does not support OomKillDisable. OomKillDisable discarded."
OOM_KILL_UNLIMITED = (
    "OOM killer is disabled for the container, but no memory limit is set,"
    " this can result in the system running out of resources."
)
PIDS_UNSUPPORTED = (
    "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."
)
SHARES_UNSUPPORTED = "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded."
CFS_UNSUPPORTED = (
    "Your kernel does not support CPU CFS scheduler or the cgroup is not mounted. Period and quota discarded."
)
REALTIME_UNSUPPORTED = "Your kernel does not support CPU real-time scheduler"
CPUSET_UNSUPPORTED = "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded."
WEIGHT_UNSUPPORTED = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
WEIGHT_DEVICE_UNSUPPORTED = (
    "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
)
THROTTLE_UNSUPPORTED = {
    "throttle_read_bps_device": "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted."
    " Block I/O BPS read limit discarded.",
    "throttle_write_bps_device": "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted."
    " Block I/O BPS write limit discarded.",
    "throttle_read_iops_device": "Your kernel does not support IOPS Block read limit or the cgroup is not mounted."
    " Block I/O IOPS read limit discarded.",
    "throttle_write_iops_device": "Your kernel does not support IOPS Block write limit or the cgroup is not mounted."
    " Block I/O IOPS write limit discarded.",
}


class Support(msgspec.Struct, frozen=True):
    """Which limits this kernel keeps; also what Docker's `info` shows under these names."""

    memory_limit: bool = False
    swap_limit: bool = False
    memory_reservation: bool = False
    swappiness: bool = False
    oom_kill_disable: bool = False
    pids_limit: bool = False
    cpu_shares: bool = False
    cpu_quota: bool = False
    cpu_realtime: bool = False
    cpuset: bool = False
    blkio_weight: bool = False
    blkio_weight_device: bool = False
    blkio_throttle: bool = False
    hugetlb: bool = False
    cpus: frozenset[int] = frozenset()
    mems: frozenset[int] = frozenset()


def detect_support(hierarchies: Hierarchies | None = None) -> Support:
    """Looks at the files of each controller, in whichever hierarchy it is."""
    found = hierarchies or known_hierarchies()

    def has(controller: str, v1_name: str, v2_name: str) -> bool:
        hierarchy = found.find(controller)
        name = v1_name if hierarchy and hierarchy.version == 1 else v2_name
        return bool(hierarchy and name and _offers(hierarchy, name))

    cpuset = found.find("cpuset")
    io = found.find("blkio") or found.find("io")
    return Support(
        memory_limit=found.find("memory") is not None,
        swap_limit=has("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        memory_reservation=has("memory", "memory.soft_limit_in_bytes", "memory.low"),
        swappiness=has("memory", "memory.swappiness", ""),
        oom_kill_disable=has("memory", "memory.oom_control", ""),
        pids_limit=found.find("pids") is not None,
        cpu_shares=found.find("cpu") is not None,
        cpu_quota=has("cpu", "cpu.cfs_quota_us", "cpu.max"),
        cpu_realtime=has("cpu", "cpu.rt_runtime_us", ""),
        cpuset=cpuset is not None,
        blkio_weight=_weight(io, "weight"),
        blkio_weight_device=_weight(io, "weight_device"),
        blkio_throttle=io is not None and (io.version == 2 or _offers(io, "blkio.throttle.read_bps_device")),
        hugetlb=found.find("hugetlb") is not None,
        cpus=_places(cpuset, "cpus"),
        mems=_places(cpuset, "mems"),
    )


def _offers(hierarchy: Hierarchy, name: str) -> bool:
    """Whether cgroups have a file; most of v2's are not in the root, so a cgroup below it is asked where there is one.

    With none to ask, v2's are taken to be there: all are as old as v2's controllers, but for swap without CONFIG_SWAP.
    """
    if os.path.exists(f"{hierarchy.base}/{name}"):
        return True
    if hierarchy.version == 1:
        return False
    controller = name.partition(".")[0]
    below = [path for path in cgroupfs.children(hierarchy.base) if _has_controller(path, controller)]
    return not below or os.path.exists(f"{below[0]}/{name}")


def _has_controller(directory: str, controller: str) -> bool:
    return controller in (cgroupfs.read_if_present(directory + "/cgroup.controllers") or "").split()


def _weight(io: Hierarchy | None, name: str) -> bool:
    """blkio's weights are CFQ's (before Linux 5.0) or bfq's, whose file is missing from the root, unlike its counters.

    v2 has one file for all devices and for one: iocost's or bfq's.
    """
    if io is None:
        return False
    if io.version == 2:
        below = [path for path in cgroupfs.children(io.base) if _has_controller(path, "io")]
        files = ("io.weight", "io.bfq.weight")
        return not below or any(os.path.exists(f"{below[0]}/{file}") for file in files)
    return any(
        os.path.exists(f"{io.base}/{file}")
        for file in (f"blkio.{name}", f"blkio.bfq.{name}", "blkio.bfq.io_service_bytes")
    )


def _places(cpuset: Hierarchy | None, what: str) -> frozenset[int]:
    if cpuset is None:
        return frozenset()
    names = (f"cpuset.effective_{what}", f"cpuset.{what}") if cpuset.version == 1 else (f"cpuset.{what}.effective",)
    for name in names:
        if text := cgroupfs.read_if_present(f"{cpuset.base}/{name}"):
            return frozenset(parse_cpu_list(text))
    return frozenset()


@functools.cache
def _known_support() -> Support:
    """Looked at once: of all this only the processors can change while a kernel runs, and those are asked for anew."""
    return detect_support()


def check_resources(
    resources: LinuxResources, hierarchies: Hierarchies | None = None, support: Support | None = None
) -> tuple[LinuxResources, list[str]]:
    """`resources` without what this kernel can't keep, and a warning for each; give `support` to spare the look-up."""
    if support is None:
        places = resources.cpu is not None and bool(resources.cpu.cpus or resources.cpu.mems)
        support = detect_support(hierarchies) if places or hierarchies else _known_support()
    warnings: list[str] = []
    checked = msgspec.structs.replace(
        resources,
        memory=_check_memory(resources.memory, support, warnings),
        cpu=_check_cpu(resources.cpu, support, warnings),
        block_io=_check_block_io(resources.block_io, support, warnings),
    )
    if resources.pids and resources.pids.limit is not None and not support.pids_limit:
        if resources.pids.limit > 0:
            warnings.append(PIDS_UNSUPPORTED)
        checked = msgspec.structs.replace(checked, pids=None)
    return checked, warnings


def _drop(record: Any, *fields: str) -> Any:
    return msgspec.structs.replace(record, **dict.fromkeys(fields))


def _check_memory(memory: LinuxMemory | None, support: Support, warnings: list[str]) -> LinuxMemory | None:
    if memory is None:
        return None
    if (memory.limit or 0) > 0 and not support.memory_limit:
        warnings.append(MEMORY_UNSUPPORTED)
        memory = _drop(memory, "limit", "swap")
    if not support.swap_limit and memory.swap is not None:
        # Docker warns for each memory limit, since its default swap limit is twice that; so does this.
        if memory.swap != UNLIMITED:
            warnings.append(SWAP_UNSUPPORTED)
        memory = _drop(memory, "swap")
    if memory.swappiness is not None and not support.swappiness:
        warnings.append(SWAPPINESS_UNSUPPORTED)
        memory = _drop(memory, "swappiness")
    if memory.reservation and not support.memory_reservation:
        warnings.append(RESERVATION_UNSUPPORTED)
        memory = _drop(memory, "reservation")
    if memory.disable_oom_killer is not None:
        if not support.oom_kill_disable:
            if memory.disable_oom_killer:
                warnings.append(OOM_KILL_UNSUPPORTED)
            memory = _drop(memory, "disable_oom_killer")
        elif memory.disable_oom_killer and not memory.limit:
            warnings.append(OOM_KILL_UNLIMITED)
    return memory if memory != LinuxMemory() else None


def _check_cpu(cpu: LinuxCPU | None, support: Support, warnings: list[str]) -> LinuxCPU | None:
    if cpu is None:
        return None
    if cpu.shares and not support.cpu_shares:
        warnings.append(SHARES_UNSUPPORTED)
        cpu = _drop(cpu, "shares")
    if (cpu.period or cpu.quota) and not support.cpu_quota:
        warnings.append(CFS_UNSUPPORTED)
        cpu = _drop(cpu, "period", "quota", "burst")
    if (cpu.realtime_period or cpu.realtime_runtime) and not support.cpu_realtime:
        raise InvalidArgument(REALTIME_UNSUPPORTED)
    if cpu.cpus or cpu.mems:
        if not support.cpuset:
            warnings.append(CPUSET_UNSUPPORTED)
            cpu = msgspec.structs.replace(cpu, cpus="", mems="")
        _check_places(cpu.cpus, support.cpus, "cpus", "CPUs")
        _check_places(cpu.mems, support.mems, "mems", "memory nodes")
    return cpu if cpu != LinuxCPU() else None


def _check_places(text: str, available: frozenset[int], option: str, what: str) -> None:
    if not text:
        return
    try:
        wanted = parse_cpu_list(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"Invalid value {text} for cpuset {option}") from error
    if not wanted <= available:
        have = format_cpu_list(available)
        raise InvalidArgument(f"Requested {what} are not available - requested {text}, available: {have}")


def format_cpu_list(numbers: frozenset[int]) -> str:
    """Numbers as the kernel lists them: `0-2,7`."""
    parts: list[str] = []
    ordered = sorted(numbers)
    start = 0
    for index, number in enumerate(ordered):
        if index + 1 == len(ordered) or ordered[index + 1] != number + 1:
            first = ordered[start]
            parts.append(str(number) if first == number else f"{first}-{number}")
            start = index + 1
    return ",".join(parts)


def _check_block_io(block_io: LinuxBlockIO | None, support: Support, warnings: list[str]) -> LinuxBlockIO | None:
    if block_io is None:
        return None
    if block_io.weight and not support.blkio_weight:
        warnings.append(WEIGHT_UNSUPPORTED)
        block_io = _drop(block_io, "weight")
    if block_io.weight_device and not support.blkio_weight_device:
        warnings.append(WEIGHT_DEVICE_UNSUPPORTED)
        block_io = _drop(block_io, "weight_device")
    for field, warning in THROTTLE_UNSUPPORTED.items():
        if getattr(block_io, field) and not support.blkio_throttle:
            warnings.append(warning)
            block_io = _drop(block_io, field)
    return block_io if block_io != LinuxBlockIO() else None
