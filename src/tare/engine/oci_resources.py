"""Limits and ranks: from Docker's options to the OCI spec's. Pure but for block devices' numbers."""

from __future__ import annotations

import os
import stat

from tare.engine.options import ResourceOptions, ThrottleDevice
from tare.errors import InvalidArgument, system_text
from tare.oci.runtime_spec import (
    LinuxBlockIO,
    LinuxCPU,
    LinuxDeviceCgroup,
    LinuxMemory,
    LinuxPids,
    LinuxResources,
    LinuxThrottleDevice,
    LinuxWeightDevice,
)

CPU_PERIOD_US = 100_000


def resources(options: ResourceOptions, rules: tuple[LinuxDeviceCgroup, ...] | None) -> LinuxResources:
    """The OCI resources; what wasn't asked for is None, which means that the kernel's default stays."""
    return LinuxResources(
        devices=rules, memory=_memory(options), cpu=_cpu(options), pids=_pids(options), block_io=_block_io(options)
    )


def _memory(options: ResourceOptions) -> LinuxMemory | None:
    swappiness = options.memory_swappiness
    found = LinuxMemory(
        limit=options.memory or None,
        reservation=options.memory_reservation or None,
        swap=options.memory_swap or None,
        swappiness=swappiness if swappiness is not None and swappiness >= 0 else None,
        disable_oom_killer=options.oom_kill_disable or None,
    )
    return found if found != LinuxMemory() else None


def _cpu(options: ResourceOptions) -> LinuxCPU | None:
    period, quota = options.cpu_period or None, options.cpu_quota or None
    if options.nano_cpus:
        period, quota = CPU_PERIOD_US, options.nano_cpus * CPU_PERIOD_US // 10**9
    found = LinuxCPU(
        shares=options.cpu_shares or None,
        period=period,
        quota=quota,
        realtime_period=options.cpu_realtime_period or None,
        realtime_runtime=options.cpu_realtime_runtime or None,
        cpus=options.cpuset_cpus,
        mems=options.cpuset_mems,
    )
    return found if found != LinuxCPU() else None


def _pids(options: ResourceOptions) -> LinuxPids | None:
    limit = options.pids_limit
    if limit is None:
        return None
    return LinuxPids(limit=limit if limit > 0 else -1)


def _block_io(options: ResourceOptions) -> LinuxBlockIO | None:
    weights = tuple(
        LinuxWeightDevice(*_numbers(device.path), weight=device.weight) for device in options.blkio_weight_device or ()
    )
    found = LinuxBlockIO(
        weight=options.blkio_weight or None,
        weight_device=weights or None,
        throttle_read_bps_device=_throttles(options.blkio_device_read_bps),
        throttle_write_bps_device=_throttles(options.blkio_device_write_bps),
        throttle_read_iops_device=_throttles(options.blkio_device_read_iops),
        throttle_write_iops_device=_throttles(options.blkio_device_write_iops),
    )
    return found if found != LinuxBlockIO() else None


def _throttles(devices: tuple[ThrottleDevice, ...] | None) -> tuple[LinuxThrottleDevice, ...] | None:
    found = tuple(LinuxThrottleDevice(*_numbers(device.path), rate=device.rate) for device in devices or ())
    return found or None


def _numbers(path: str) -> tuple[int, int]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise InvalidArgument(f"{path}: {system_text(error.errno or 0).lower()}") from error
    if not stat.S_ISBLK(info.st_mode):
        raise InvalidArgument(f"{path}: not a block device")
    return os.major(info.st_rdev), os.minor(info.st_rdev)
