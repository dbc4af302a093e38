"""Writes the limits of one cgroup into v2's files, converted from v1's units where the OCI spec speaks those.

Never reads the spec's defaults into a limit: a field that is None is left as it is.
"""

from __future__ import annotations

import errno
import os

from tare.errors import InvalidArgument, KernelError, Unsupported
from tare.kernel import cgroupfs
from tare.oci.runtime_spec import LinuxBlockIO, LinuxCPU, LinuxHugepageLimit, LinuxMemory
from tare.runtime.cgroups import convert
from tare.runtime.cgroups.v1_controllers import SWAP_UNSUPPORTED, check_page_size, check_shares


def apply_memory(directory: str, memory: LinuxMemory) -> None:
    """memory.max, memory.swap.max, memory.low. Swappiness and the OOM killer's switch have no file in v2."""
    if memory.disable_oom_killer:
        raise Unsupported("Your kernel does not support OomKillDisable.")
    if memory.swappiness is not None:
        raise Unsupported("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted.")
    swap = memory.swap
    if swap is None and memory.limit == convert.UNLIMITED:
        swap = convert.UNLIMITED
    swap_path = directory + "/memory.swap.max"
    if swap is not None:
        if os.path.exists(swap_path):
            value = convert.swap_max(_limit_for_swap(directory, memory, swap), swap)
            cgroupfs.write(swap_path, convert.format_limit(value))
        elif swap != convert.UNLIMITED:
            raise Unsupported(SWAP_UNSUPPORTED)
    if memory.limit is not None:
        if memory.check_before_update and memory.limit > 0:
            usage = int(cgroupfs.read(directory + "/memory.current"))
            if usage > memory.limit:
                why = f"unable to set memory limit to {memory.limit} (current usage: {usage})"
                raise KernelError(errno.EBUSY, "write", directory + "/memory.max", why)
        cgroupfs.write(directory + "/memory.max", convert.format_limit(memory.limit))
    if memory.reservation is not None:
        cgroupfs.write(directory + "/memory.low", convert.format_limit(memory.reservation))


def _limit_for_swap(directory: str, memory: LinuxMemory, swap: int) -> int | None:
    """The memory limit that a limit on both is measured against; an update of swap alone leaves the one in force."""
    if memory.limit is not None or swap == convert.UNLIMITED:
        return memory.limit
    return convert.parse_limit(cgroupfs.read_if_present(directory + "/memory.max"))


def apply_cpu(directory: str, cpu: LinuxCPU) -> None:
    """cpu.weight, cpu.max, cpu.max.burst, cpu.idle."""
    if cpu.realtime_period or cpu.realtime_runtime:
        raise Unsupported("Your kernel does not support CPU real-time scheduler")
    if cpu.idle is not None:
        cgroupfs.write(directory + "/cpu.idle", str(cpu.idle))
    if cpu.shares and cpu.idle != 1:  # an idle cgroup has no weight
        check_shares(cpu.shares)
        cgroupfs.write(directory + "/cpu.weight", str(convert.weight_from_shares(cpu.shares)))
    burst_path = directory + "/cpu.max.burst"
    if cpu.burst == 0 and os.path.exists(burst_path):
        cgroupfs.write(burst_path, "0")
    if cpu.quota or cpu.period:
        # One file holds both, and writing the quota alone keeps the period; writing the period needs the quota.
        quota = convert.format_limit(cpu.quota) if cpu.quota else cgroupfs.read(directory + "/cpu.max").split()[0]
        cgroupfs.write(directory + "/cpu.max", f"{quota} {cpu.period}" if cpu.period else quota)
    if cpu.burst:
        cgroupfs.write(burst_path, str(cpu.burst))


def apply_io(directory: str, block_io: LinuxBlockIO) -> None:
    """io.bfq.weight or io.weight, and io.max."""
    if block_io.leaf_weight:
        raise Unsupported("Your kernel does not support Block I/O leaf weight")
    if block_io.weight:
        _write_weight(directory, "", block_io.weight)
    for device in block_io.weight_device or ():
        if device.leaf_weight:
            raise Unsupported("Your kernel does not support Block I/O leaf weight")
        if device.weight:
            _write_weight(directory, f"{device.major}:{device.minor} ", device.weight)
    for key, devices in (
        ("rbps", block_io.throttle_read_bps_device),
        ("wbps", block_io.throttle_write_bps_device),
        ("riops", block_io.throttle_read_iops_device),
        ("wiops", block_io.throttle_write_iops_device),
    ):
        if devices:
            lines = [f"{device.major}:{device.minor} {key}={device.rate or 'max'}" for device in devices]
            cgroupfs.write_each(directory + "/io.max", lines)


def _write_weight(directory: str, device: str, weight: int) -> None:
    """bfq's weight has v1's range; io.weight (the iocost controller) has its own."""
    if os.path.exists(directory + "/io.bfq.weight"):
        cgroupfs.write(directory + "/io.bfq.weight", f"{device}{weight}")
    elif os.path.exists(directory + "/io.weight"):
        cgroupfs.write(directory + "/io.weight", f"{device or 'default '}{convert.io_weight_from_blkio(weight)}")
    else:
        word = "weight_device" if device else "weight"
        raise Unsupported(f"Your kernel does not support Block I/O {word} or the cgroup is not mounted.")


def apply_hugetlb(directory: str, limits: tuple[LinuxHugepageLimit, ...]) -> None:
    """Huge pages in use, and reserved where the kernel counts those."""
    for limit in limits:
        stem = f"{directory}/hugetlb.{check_page_size(limit.page_size)}"
        cgroupfs.write(stem + ".max", convert.format_limit(limit.limit))
        if os.path.exists(stem + ".rsvd.max"):
            cgroupfs.write(stem + ".rsvd.max", convert.format_limit(limit.limit))


def apply_unified(directory: str, settings: dict[str, str]) -> None:
    """v2 files by name, as the OCI spec's `unified` gives them."""
    for name, value in settings.items():
        # A key is a file's name in this very directory: no path may lead to another cgroup's limits.
        if "/" in name or name in ("", ".", "..") or "\0" in name or "." not in name:
            raise InvalidArgument(f"invalid cgroup file name {name!r}")
        if name.startswith("cgroup."):
            raise InvalidArgument(f"{name!r} is not a limit: it steers the cgroup itself")
        path = f"{directory}/{name}"
        if not os.path.exists(path):
            raise Unsupported(f"this kernel, or the cgroup's parent, offers no {name!r}")
        cgroupfs.write_each(path, [line for line in value.split("\n") if line] or [""])
