"""Writes the limits of one cgroup into v1's controllers; each function knows one controller's files and their order.

Never reads the spec's defaults into a limit: a field that is None is left as it is.
"""

from __future__ import annotations

import errno
import os

from tare.errors import InvalidArgument, KernelError, Unsupported
from tare.kernel import cgroupfs
from tare.oci.runtime_spec import (
    LinuxBlockIO,
    LinuxCPU,
    LinuxDeviceCgroup,
    LinuxHugepageLimit,
    LinuxMemory,
    LinuxNetwork,
    LinuxRdma,
    LinuxThrottleDevice,
)
from tare.runtime.cgroups.convert import UNLIMITED, format_limit, parse_limit
from tare.runtime.cgroups.devices import expand_rules, format_rule

SWAP_UNSUPPORTED = (
    "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
)


def apply_memory(directory: str, memory: LinuxMemory) -> None:
    """limit, memsw, reservation, swappiness, oom_control. Kernel memory limits are ignored, as runc ignores them."""
    limit, swap = memory.limit, memory.swap
    memsw = directory + "/memory.memsw.limit_in_bytes"
    has_memsw = swap is not None or limit == UNLIMITED
    has_memsw = has_memsw and os.path.exists(memsw)
    if limit == UNLIMITED and swap is None and has_memsw:
        swap = UNLIMITED  # else memsw's old value would go on limiting memory
    if swap is not None and not has_memsw:
        if swap != UNLIMITED:
            raise Unsupported(SWAP_UNSUPPORTED)
        swap = None
    # The kernel keeps limit <= memsw at each moment: raise memsw first, lower it last (cgroup-v1/memory.rst, 8).
    if limit is not None and swap is not None:
        current = parse_limit(cgroupfs.read(memsw))
        if swap == UNLIMITED or (current is not None and swap > current):
            cgroupfs.write(memsw, str(swap))
            _write_memory_limit(directory, limit)
        else:
            _write_memory_limit(directory, limit)
            cgroupfs.write(memsw, str(swap))
    elif limit is not None:
        _write_memory_limit(directory, limit)
    elif swap is not None:
        cgroupfs.write(memsw, str(swap))
    if memory.reservation is not None:
        cgroupfs.write(directory + "/memory.soft_limit_in_bytes", str(memory.reservation))
    if memory.swappiness is not None:
        if memory.swappiness > 100:
            raise InvalidArgument(f"Invalid value: {memory.swappiness}, valid memory swappiness range is 0-100")
        cgroupfs.write(directory + "/memory.swappiness", str(memory.swappiness))
    if memory.disable_oom_killer is not None:
        cgroupfs.write(directory + "/memory.oom_control", str(int(memory.disable_oom_killer)))


def _write_memory_limit(directory: str, limit: int) -> None:
    try:
        cgroupfs.write(directory + "/memory.limit_in_bytes", str(limit))
    except KernelError as error:
        if error.errno != errno.EBUSY:
            raise
        usage = cgroupfs.read(directory + "/memory.usage_in_bytes")
        peak = cgroupfs.read(directory + "/memory.max_usage_in_bytes")
        why = f"unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})"
        raise KernelError(error.errno, error.call, error.path, why) from error


def check_shares(shares: int) -> None:
    """The kernel would clamp a value beyond these ends without a word."""
    if shares < 2:
        raise InvalidArgument("the minimum allowed cpu-shares is 2")
    if shares > 262144:
        raise InvalidArgument("the maximum allowed cpu-shares is 262144")


def apply_cpu(directory: str, cpu: LinuxCPU) -> None:
    """shares, period and quota, burst, idle, real-time budget."""
    if cpu.shares:
        check_shares(cpu.shares)
        cgroupfs.write(directory + "/cpu.shares", str(cpu.shares))
    period_path, quota_path = directory + "/cpu.cfs_period_us", directory + "/cpu.cfs_quota_us"
    burst_path = directory + "/cpu.cfs_burst_us"
    if cpu.burst == 0 and os.path.exists(burst_path):
        cgroupfs.write(burst_path, "0")  # a burst above the new quota would make that write fail
    if cpu.period:
        try:
            cgroupfs.write(period_path, str(cpu.period))
        except KernelError as error:
            # EINVAL: the new period with the old quota may exceed the parent's share; set the quota first.
            if error.errno != errno.EINVAL or not cpu.quota:
                raise
            cgroupfs.write(quota_path, str(cpu.quota))
            cgroupfs.write(period_path, str(cpu.period))
    if cpu.quota:
        cgroupfs.write(quota_path, str(cpu.quota))
    if cpu.burst:
        cgroupfs.write(burst_path, str(cpu.burst))
    if cpu.idle is not None:
        cgroupfs.write(directory + "/cpu.idle", str(cpu.idle))
    if cpu.realtime_period:
        cgroupfs.write(directory + "/cpu.rt_period_us", str(cpu.realtime_period))
    if cpu.realtime_runtime:
        cgroupfs.write(directory + "/cpu.rt_runtime_us", str(cpu.realtime_runtime))


def apply_devices(directory: str, rules: tuple[LinuxDeviceCgroup, ...]) -> None:
    """The rules in their order; runs of one kind go through one descriptor."""
    rules = expand_rules(rules)
    start = 0
    while start < len(rules):
        end = start
        while end < len(rules) and rules[end].allow == rules[start].allow:
            end += 1
        name = "devices.allow" if rules[start].allow else "devices.deny"
        cgroupfs.write_each(f"{directory}/{name}", [format_rule(rule) for rule in rules[start:end]])
        start = end


def apply_blkio(directory: str, block_io: LinuxBlockIO) -> None:
    """Weight (bfq's where the old one is gone) and throttles."""
    if block_io.weight:
        _write_blkio_weight(directory, "weight", str(block_io.weight))
    if block_io.leaf_weight:
        cgroupfs.write(directory + "/blkio.leaf_weight", str(block_io.leaf_weight))
    for device in block_io.weight_device or ():
        if device.weight:
            _write_blkio_weight(directory, "weight_device", f"{device.major}:{device.minor} {device.weight}")
        if device.leaf_weight:
            line = f"{device.major}:{device.minor} {device.leaf_weight}"
            cgroupfs.write(directory + "/blkio.leaf_weight_device", line)
    _throttle(directory, "read_bps_device", block_io.throttle_read_bps_device)
    _throttle(directory, "write_bps_device", block_io.throttle_write_bps_device)
    _throttle(directory, "read_iops_device", block_io.throttle_read_iops_device)
    _throttle(directory, "write_iops_device", block_io.throttle_write_iops_device)


def _write_blkio_weight(directory: str, name: str, value: str) -> None:
    for prefix in ("blkio", "blkio.bfq"):
        path = f"{directory}/{prefix}.{name}"
        if os.path.exists(path):
            cgroupfs.write(path, value)
            return
    word = "weight" if name == "weight" else "weight_device"
    raise Unsupported(f"Your kernel does not support Block I/O {word} or the cgroup is not mounted.")


def _throttle(directory: str, name: str, devices: tuple[LinuxThrottleDevice, ...] | None) -> None:
    if devices:
        lines = [f"{device.major}:{device.minor} {device.rate}" for device in devices]
        cgroupfs.write_each(f"{directory}/blkio.throttle.{name}", lines)


def check_page_size(page_size: str) -> str:
    """A page size is part of a file name, so it may hold nothing but a number and a unit."""
    if not (page_size.isascii() and page_size.isalnum()):
        raise InvalidArgument(f"invalid huge page size {page_size!r}")
    return page_size


def apply_hugetlb(directory: str, limits: tuple[LinuxHugepageLimit, ...]) -> None:
    """Huge pages in use, and reserved where the kernel counts those."""
    for limit in limits:
        stem = f"{directory}/hugetlb.{check_page_size(limit.page_size)}"
        cgroupfs.write(stem + ".limit_in_bytes", str(limit.limit))
        if os.path.exists(stem + ".rsvd.limit_in_bytes"):
            cgroupfs.write(stem + ".rsvd.limit_in_bytes", str(limit.limit))


def apply_network_class(directory: str, network: LinuxNetwork) -> None:
    """The class of outgoing packets."""
    if network.class_id is not None:
        cgroupfs.write(directory + "/net_cls.classid", str(network.class_id))


def apply_network_priorities(directory: str, network: LinuxNetwork) -> None:
    """The priority of outgoing packets by interface."""
    if network.priorities:
        lines = [f"{priority.name} {priority.priority}" for priority in network.priorities]
        cgroupfs.write_each(directory + "/net_prio.ifpriomap", lines)


def apply_rdma(directory: str, rdma: dict[str, LinuxRdma]) -> None:
    """RDMA handles and objects by device; the file is the same in v1 and v2."""
    for device, limits in rdma.items():
        handles = format_limit(UNLIMITED if limits.hca_handles is None else limits.hca_handles)
        objects = format_limit(UNLIMITED if limits.hca_objects is None else limits.hca_objects)
        cgroupfs.write(directory + "/rdma.max", f"{device} hca_handle={handles} hca_object={objects}")
