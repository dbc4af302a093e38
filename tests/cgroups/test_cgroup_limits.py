"""Limits that this machine's kernel keeps, set and then felt by a process."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
from pathlib import Path

import pytest
from cgroup_child import Child

from tare.errors import InvalidArgument, KernelError, Unsupported
from tare.oci.runtime_spec import (
    LinuxBlockIO,
    LinuxCPU,
    LinuxHugepageLimit,
    LinuxMemory,
    LinuxPids,
    LinuxResources,
    LinuxThrottleDevice,
)
from tare.runtime.cgroups import Cgroup, check_resources, detect_hierarchies, detect_support

MIB = 1 << 20


def memory(limit: int | None, swap: int | None = None, reservation: int | None = None) -> LinuxResources:
    return LinuxResources(memory=LinuxMemory(limit=limit, swap=swap, reservation=reservation))


kept: list[mmap.mmap] = []


def touch(size: int) -> int:
    area = mmap.mmap(-1, size)
    for offset in range(0, size, 4096):
        area[offset] = 1
    kept.append(area)
    return len(area)


def test_memory_hog_is_killed_and_counted(machine_cgroup: Cgroup) -> None:
    """A process that takes more than the limit dies of SIGKILL, and oom_kills() tells why."""
    machine_cgroup.apply(memory(24 * MIB, 32 * MIB))
    child = Child(machine_cgroup, lambda: touch(64 * MIB))
    assert child.wait() == -signal.SIGKILL
    assert machine_cgroup.oom_kills() == 1
    stats = machine_cgroup.stats().memory
    assert stats.limit == 24 * MIB
    assert stats.failcnt > 0
    assert "pgfault" in stats.stats


def test_memory_limits_can_be_raised_and_lowered_in_any_order(machine_cgroup: Cgroup) -> None:
    """memory <= memory+swap holds at each step, whichever way both move."""
    for limit, swap in ((64, 128), (256, 512), (32, 32), (300, 400), (16, 20), (-1, -1), (64, 64), (48, -1), (96, 96)):
        machine_cgroup.apply(memory(limit * MIB if limit > 0 else -1, swap * MIB if swap > 0 else -1))
        assert machine_cgroup.stats().memory.limit == (limit * MIB if limit > 0 else None)
    machine_cgroup.apply(memory(-1))
    assert machine_cgroup.stats().memory.limit is None
    machine_cgroup.apply(memory(None, reservation=32 * MIB))


def test_memory_limit_below_use_names_both(machine_cgroup: Cgroup) -> None:
    """What can't be reclaimed makes the limit fail, with the figures in the message."""
    machine_cgroup.apply(memory(64 * MIB, 64 * MIB))
    child = Child(machine_cgroup, lambda: touch(32 * MIB))
    assert child.result() == str(32 * MIB)
    if detect_hierarchies().mode == "v2":
        with pytest.raises(KernelError, match="unable to set memory limit to"):
            limits = LinuxMemory(limit=8 * MIB, swap=8 * MIB, check_before_update=True)
            machine_cgroup.apply(LinuxResources(memory=limits))
    else:
        with pytest.raises(KernelError, match=r"unable to set memory limit to 8388608 .current usage: [0-9]+, peak"):
            machine_cgroup.apply(memory(8 * MIB, 8 * MIB))
    assert child.stop() == -signal.SIGKILL


def test_pids_limit_stops_a_fork_bomb(machine_cgroup: Cgroup) -> None:
    """With room for five, the fifth fork fails with EAGAIN."""
    machine_cgroup.apply(LinuxResources(pids=LinuxPids(limit=5)))

    def bomb() -> tuple[int, int]:
        made = 0
        while True:
            try:
                if os.fork() == 0:
                    signal.pause()
            except OSError as error:
                return made, error.errno or 0
            made += 1

    child = Child(machine_cgroup, bomb)
    assert child.result() == str((4, errno.EAGAIN))
    assert machine_cgroup.stats().pids.current == 5
    assert machine_cgroup.stats().pids.limit == 5
    machine_cgroup.kill(signal.SIGKILL)
    child.wait()
    machine_cgroup.apply(LinuxResources(pids=LinuxPids(limit=0)))
    assert machine_cgroup.stats().pids.limit is None


def test_cpu_quota_slows_a_busy_process(machine_cgroup: Cgroup) -> None:
    """A tenth of a processor is felt: the process is throttled, and needs ten times as long as it works, or longer."""
    machine_cgroup.apply(LinuxResources(cpu=LinuxCPU(shares=4096, quota=10_000, period=100_000)))

    def busy() -> float:
        start = time.monotonic()
        used = time.process_time()
        while time.process_time() < used + 0.1:
            pass
        return time.monotonic() - start

    child = Child(machine_cgroup, busy)
    assert float(child.result()) > 0.5, "it worked for 0.1 s in less than about 1 s"
    stats = machine_cgroup.stats().cpu
    assert stats.throttled_periods > 0 and stats.throttled_ns > 0 and stats.periods > 0
    assert stats.total_ns > 10_000_000
    child.stop()
    for quota, period in ((50_000, 50_000), (5_000, 10_000), (100_000, 1_000_000), (-1, 100_000)):
        machine_cgroup.apply(LinuxResources(cpu=LinuxCPU(quota=quota, period=period)))


def test_cpuset_binds(machine_cgroup: Cgroup) -> None:
    """A process sees only the processors it was given; without any given, all."""
    child = Child(machine_cgroup, lambda: sorted(os.sched_getaffinity(0)))
    assert child.result() == str(sorted(os.sched_getaffinity(0)))
    child.stop()
    machine_cgroup.apply(LinuxResources(cpu=LinuxCPU(cpus="0", mems="0")))
    child = Child(machine_cgroup, lambda: sorted(os.sched_getaffinity(0)))
    assert child.result() == "[0]"
    child.stop()


@pytest.mark.parametrize(("shares", "word"), [(1, "minimum"), (262145, "maximum")])
def test_cpu_shares_beyond_the_ends_are_refused(machine_cgroup: Cgroup, shares: int, word: str) -> None:
    """The kernel would clamp without a word."""
    with pytest.raises(InvalidArgument, match=f"the {word} allowed cpu-shares is"):
        machine_cgroup.apply(LinuxResources(cpu=LinuxCPU(shares=shares)))


def root_disk() -> tuple[int, int] | None:
    device = Path("/").stat().st_dev
    whole = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not whole.exists():
        return None
    if (whole / "partition").exists():
        numbers = (whole.resolve().parent / "dev").read_text().split(":")
        return int(numbers[0]), int(numbers[1])
    return os.major(device), os.minor(device)


def test_block_device_throttle_and_weight(machine_cgroup: Cgroup) -> None:
    """Throttles are accepted for the disk of the root file system; a weight is set or refused by name."""
    disk = root_disk()
    if disk is not None:
        throttle = (LinuxThrottleDevice(*disk, rate=MIB),)
        machine_cgroup.apply(
            LinuxResources(
                block_io=LinuxBlockIO(throttle_read_bps_device=throttle, throttle_write_iops_device=throttle)
            )
        )
    if detect_support().blkio_weight:
        machine_cgroup.apply(LinuxResources(block_io=LinuxBlockIO(weight=300)))
    else:
        with pytest.raises(Unsupported, match="does not support Block I/O weight"):
            machine_cgroup.apply(LinuxResources(block_io=LinuxBlockIO(weight=300)))


def test_huge_page_limit_reaches_the_hierarchy_that_has_it(machine_cgroup: Cgroup) -> None:
    """On a hybrid machine the v2 cgroup is made for it, joined, counted and removed."""
    limits = LinuxResources(hugepage_limits=(LinuxHugepageLimit("2MB", 4 * MIB),))
    if not detect_support().hugetlb:
        with pytest.raises(Unsupported, match="huge page"):
            machine_cgroup.apply(limits)
        return
    machine_cgroup.apply(limits)
    child = Child(machine_cgroup, lambda: Path("/proc/self/cgroup").read_text())
    assert "0::/tare-test" in child.result()
    assert "2MB" in machine_cgroup.stats().hugetlb
    child.stop()
    machine_cgroup.remove()
    assert not machine_cgroup.exists()


def test_unknown_huge_page_size_is_an_error(machine_cgroup: Cgroup) -> None:
    """A size is part of a file name: neither a path nor an absent size passes."""
    for size in ("../x", "2MB/../..", ""):
        with pytest.raises((InvalidArgument, Unsupported)):
            machine_cgroup.apply(LinuxResources(hugepage_limits=(LinuxHugepageLimit(size, MIB),)))


def test_what_this_machine_supports_passes_the_check_unchanged() -> None:
    """A limit that the kernel keeps gives no warning; a processor that isn't there is Docker's error."""
    resources = LinuxResources(memory=LinuxMemory(limit=MIB * 64), cpu=LinuxCPU(shares=2, cpus="0"))
    assert check_resources(resources) == (resources, [])
    with pytest.raises(InvalidArgument, match=r"^Requested CPUs are not available - requested 0,4095, available: 0"):
        check_resources(LinuxResources(cpu=LinuxCPU(cpus="0,4095")))
    with pytest.raises(InvalidArgument, match=r"^Invalid value 0-x for cpuset cpus$"):
        check_resources(LinuxResources(cpu=LinuxCPU(cpus="0-x")))
