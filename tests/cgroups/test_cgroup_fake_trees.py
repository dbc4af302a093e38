"""Detection, file contents and warnings on trees of plain files that look like other machines' cgroups."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tare.errors import InvalidArgument, Unsupported
from tare.kernel import cgroupfs
from tare.oci.runtime_spec import (
    LinuxBlockIO,
    LinuxCPU,
    LinuxHugepageLimit,
    LinuxMemory,
    LinuxNetwork,
    LinuxPids,
    LinuxRdma,
    LinuxResources,
    LinuxThrottleDevice,
    LinuxWeightDevice,
)
from tare.runtime.cgroups import Hierarchies, Support, check_resources, detect_hierarchies, detect_support, open_cgroup
from tare.runtime.cgroups.convert import io_weight_from_blkio, weight_from_shares

CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma"
V2_FILES = {
    "cgroup.controllers": CONTROLLERS,
    "cgroup.subtree_control": CONTROLLERS,
    "cgroup.procs": "",
    "cgroup.events": "populated 0\nfrozen 0",
    "memory.current": "4096",
    "memory.max": "max",
    "memory.low": "0",
    "memory.swap.max": "max",
    "memory.stat": "anon 10\nfile 20\ninactive_file 5",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0",
    "memory.peak": "8192",
    "cpu.weight": "100",
    "cpu.idle": "0",
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "cpuset.cpus.effective": "0-3",
    "cpuset.mems.effective": "0",
    "pids.max": "max",
    "pids.current": "3",
    "io.max": "",
    "io.weight": "default 100",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 \nbad",
    "hugetlb.2MB.max": "max",
    "hugetlb.2MB.rsvd.max": "max",
    "hugetlb.2MB.current": "2097152",
    "hugetlb.2MB.events": "max 1",
    "rdma.max": "",
}


def make_tree(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text + "\n")


@pytest.fixture(autouse=True)
def files_that_keep_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cgroup file takes each write as a whole; a plain one must be emptied first."""
    for name in ("write", "write_each"):
        original = getattr(cgroupfs, name)

        def emptied(path: str, value: object, original: Callable[[str, object], None] = original) -> None:
            if os.path.exists(path):
                os.truncate(path, 0)
            original(path, value)

        monkeypatch.setattr(cgroupfs, name, emptied)


@pytest.fixture
def v2(tmp_path: Path) -> Hierarchies:
    """A v2 machine with all controllers, and the cgroup /tare/c."""
    mount = tmp_path / "cgroup"
    for directory in (mount, mount / "tare", mount / "tare" / "c"):
        make_tree(directory, V2_FILES)
    (tmp_path / "mountinfo").write_text(f"30 23 0:26 / {mount} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n")
    (tmp_path / "self").write_text("0::/system.slice/tared.service\n")
    return detect_hierarchies(str(tmp_path / "mountinfo"), str(tmp_path / "self"))


def content(hierarchies: Hierarchies, name: str) -> str:
    assert hierarchies.v2
    return Path(hierarchies.v2.base, "tare", "c", name).read_text().strip("\n")


def apply(hierarchies: Hierarchies, resources: LinuxResources) -> None:
    open_cgroup("/tare/c", hierarchies).apply(resources)


def test_detects_v2(v2: Hierarchies) -> None:
    """One cgroup2 mount with its controllers."""
    assert v2.mode == "v2"
    assert v2.v2 and v2.v2.controllers == tuple(CONTROLLERS.split())


def test_detects_v1_hybrid_and_none(tmp_path: Path) -> None:
    """Joined controllers, names, escapes, second mounts of one hierarchy and other file systems are told apart."""
    unified = tmp_path / "with space"
    make_tree(unified, {"cgroup.controllers": "hugetlb", "cgroup.procs": ""})
    escaped = str(unified).replace(" ", r"\040")
    lines = [
        "1 0 0:1 / / rw shared:1 - ext4 /dev/vda rw",
        "2 1 0:2 / /c/cpu,cpuacct rw,nosuid shared:9 master:3 - cgroup cgroup rw,cpu,cpuacct",
        "3 1 0:3 / /c/memory rw - cgroup cgroup rw,memory,xattr",
        "4 1 0:4 / /c/systemd rw - cgroup cgroup rw,xattr,name=systemd",
        "5 1 0:3 / /elsewhere/memory rw - cgroup cgroup rw,memory",
        "6 1 0:5 / /c/strange rw - cgroup cgroup rw,noprefix",
    ]
    info = tmp_path / "mountinfo"
    info.write_text("\n".join(lines))
    v1 = detect_hierarchies(str(info), "/nonexistent")
    assert v1.mode == "v1"
    assert [hierarchy.base for hierarchy in v1.v1] == ["/c/cpu,cpuacct", "/c/memory", "/c/systemd"]
    assert v1.v1[0].controllers == ("cpu", "cpuacct")
    assert v1.v1[2].controllers == ("name=systemd",)
    info.write_text("\n".join([*lines, f"7 1 0:6 / {escaped} rw - cgroup2 cgroup2 rw"]))
    hybrid = detect_hierarchies(str(info), "/nonexistent")
    assert hybrid.mode == "hybrid"
    assert hybrid.v2 and hybrid.v2.base == str(unified)
    assert (found := hybrid.find("hugetlb")) and found.version == 2
    assert hybrid.find("pids") is None
    info.write_text(lines[0])
    none = detect_hierarchies(str(info), "/nonexistent")
    assert none.mode == "none"
    with pytest.raises(Unsupported, match="no cgroup file system is mounted"):
        open_cgroup("/tare/c", none)


def test_delegated_cgroup_is_the_base_where_the_root_is_not_ours(tmp_path: Path) -> None:
    """Of a v2 root that can't be written, our own cgroup is used, as systemd's Delegate= hands it over."""
    mount = tmp_path / "cgroup"
    make_tree(mount, {"cgroup.controllers": "pids"})
    make_tree(mount / "user.slice" / "own", {"cgroup.procs": ""})
    (tmp_path / "mountinfo").write_text(f"30 23 0:26 / {mount} rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "self").write_text("4:memory:/x\n0::/user.slice/own\n")
    found = detect_hierarchies(str(tmp_path / "mountinfo"), str(tmp_path / "self"))
    assert found.v2 and found.v2.base == f"{mount}/user.slice/own"
    make_tree(mount / "user.slice" / "own" / "tare-engine", {"cgroup.procs": ""})
    (tmp_path / "self").write_text("0::/user.slice/own/tare-engine\n")
    again = detect_hierarchies(str(tmp_path / "mountinfo"), str(tmp_path / "self"))
    assert again == found, "having moved aside, an engine still finds the cgroups that it made"


def test_v2_memory(v2: Hierarchies) -> None:
    """Swap is counted apart from memory in v2, and -1 is `max`."""
    apply(v2, LinuxResources(memory=LinuxMemory(limit=100, swap=250, reservation=50)))
    assert [content(v2, f"memory.{name}") for name in ("max", "swap.max", "low")] == ["100", "150", "50"]
    apply(v2, LinuxResources(memory=LinuxMemory(limit=100, swap=100)))
    assert content(v2, "memory.swap.max") == "0"
    apply(v2, LinuxResources(memory=LinuxMemory(swap=130)))
    assert content(v2, "memory.swap.max") == "30"
    apply(v2, LinuxResources(memory=LinuxMemory(limit=-1)))
    assert [content(v2, f"memory.{name}") for name in ("max", "swap.max")] == ["max", "max"]
    with pytest.raises(InvalidArgument, match="Minimum memoryswap limit should be larger than memory limit"):
        apply(v2, LinuxResources(memory=LinuxMemory(limit=100, swap=50)))
    with pytest.raises(InvalidArgument, match="You should always set the Memory limit"):
        apply(v2, LinuxResources(memory=LinuxMemory(swap=50)))


@pytest.mark.parametrize(
    "resources",
    [
        LinuxResources(memory=LinuxMemory(swappiness=10)),
        LinuxResources(memory=LinuxMemory(disable_oom_killer=True)),
        LinuxResources(cpu=LinuxCPU(realtime_runtime=1000)),
        LinuxResources(block_io=LinuxBlockIO(leaf_weight=100)),
        LinuxResources(network=LinuxNetwork(class_id=1)),
        LinuxResources(unified={"memory.zswap.max": "1"}),
    ],
)
def test_v2_refuses_what_it_has_no_file_for(v2: Hierarchies, resources: LinuxResources) -> None:
    """Never a silent no-op."""
    with pytest.raises(Unsupported):
        apply(v2, resources)


def test_v2_cpu(v2: Hierarchies) -> None:
    """Shares become a weight; quota and period share a file and keep each other."""
    apply(v2, LinuxResources(cpu=LinuxCPU(shares=1024, quota=50000, period=100000, cpus="0-1", mems="0")))
    assert content(v2, "cpu.weight") == "100"
    assert content(v2, "cpu.max") == "50000 100000"
    assert (content(v2, "cpuset.cpus"), content(v2, "cpuset.mems")) == ("0-1", "0")
    apply(v2, LinuxResources(cpu=LinuxCPU(period=20000)))
    assert content(v2, "cpu.max") == "50000 20000"
    apply(v2, LinuxResources(cpu=LinuxCPU(quota=-1, burst=500)))
    assert (content(v2, "cpu.max"), content(v2, "cpu.max.burst")) == ("max", "500")
    apply(v2, LinuxResources(cpu=LinuxCPU(idle=1, shares=2)))
    assert (content(v2, "cpu.idle"), content(v2, "cpu.weight")) == ("1", "100")


def test_v2_io_pids_hugetlb_rdma(v2: Hierarchies) -> None:
    """The remaining controllers' files."""
    disk = (LinuxThrottleDevice(8, 0, 1000),)
    apply(v2, LinuxResources(block_io=LinuxBlockIO(weight=500, throttle_write_bps_device=disk)))
    assert content(v2, "io.weight") == f"default {io_weight_from_blkio(500)}"
    assert content(v2, "io.max") == "8:0 wbps=1000"
    apply(v2, LinuxResources(block_io=LinuxBlockIO(weight_device=(LinuxWeightDevice(8, 0, 1000),))))
    assert content(v2, "io.weight") == "8:0 10000"
    apply(v2, LinuxResources(pids=LinuxPids(limit=7), hugepage_limits=(LinuxHugepageLimit("2MB", 1 << 21),)))
    assert content(v2, "pids.max") == "7"
    assert (content(v2, "hugetlb.2MB.max"), content(v2, "hugetlb.2MB.rsvd.max")) == ("2097152", "2097152")
    apply(v2, LinuxResources(rdma={"mlx5_1": LinuxRdma(3, None)}))
    assert content(v2, "rdma.max") == "mlx5_1 hca_handle=3 hca_object=max"


def test_v2_unified_settings(v2: Hierarchies) -> None:
    """Files by name, but only limits, and only in the cgroup itself."""
    apply(v2, LinuxResources(unified={"memory.low": "77", "pids.max": "9"}))
    assert (content(v2, "memory.low"), content(v2, "pids.max")) == ("77", "9")
    for name in ("../c2/memory.max", "memory.max/..", "", "..", "cgroup.procs", "cgroup.subtree_control", "x"):
        with pytest.raises(InvalidArgument):
            apply(v2, LinuxResources(unified={name: "1"}))


def test_v2_stats(v2: Hierarchies) -> None:
    """Microseconds become nanoseconds; Docker's names for block operations; no per-processor times."""
    stats = open_cgroup("/tare/c", v2).stats()
    assert stats.version == 2
    assert (stats.cpu.total_ns, stats.cpu.user_ns, stats.cpu.system_ns, stats.cpu.per_cpu_ns) == (
        30000,
        20000,
        10000,
        (),
    )
    assert (stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled_ns) == (4, 3, 2000)
    assert (stats.memory.usage, stats.memory.max_usage, stats.memory.limit) == (4096, 8192, None)
    assert stats.memory.failcnt == 7
    assert stats.memory.stats == {"anon": 10, "file": 20, "inactive_file": 5}
    assert (stats.pids.current, stats.pids.limit) == (3, None)
    assert [(e.major, e.minor, e.op, e.value) for e in stats.blkio.service_bytes] == [
        (8, 0, "read", 1),
        (8, 0, "write", 2),
    ]
    assert [(e.op, e.value) for e in stats.blkio.serviced] == [("read", 3), ("write", 4)]
    assert stats.hugetlb["2MB"].usage == 1 << 21
    assert open_cgroup("/tare/c", v2).oom_kills() == 2


def test_v2_create_enables_controllers_from_the_root_down(tmp_path: Path) -> None:
    """Each level above the new cgroup passes on what it lacks."""
    mount = tmp_path / "cgroup"
    make_tree(mount, {"cgroup.controllers": "cpu memory", "cgroup.subtree_control": "cpu", "cgroup.procs": ""})
    make_tree(mount / "tare", {"cgroup.controllers": "cpu memory", "cgroup.subtree_control": ""})
    (tmp_path / "mountinfo").write_text(f"30 23 0:26 / {mount} rw - cgroup2 cgroup2 rw\n")
    cgroup = open_cgroup("/tare/c", detect_hierarchies(str(tmp_path / "mountinfo"), "/nonexistent"))
    cgroup.create()
    assert (mount / "cgroup.subtree_control").read_text() == "+memory"
    assert (mount / "tare" / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert cgroup.exists()


def test_v1_limits_without_their_controller_are_refused(tmp_path: Path) -> None:
    """A v1 machine without memory, pids … says which one is missing."""
    make_tree(tmp_path / "cpu" / "tare" / "c", {"cpu.shares": "1024"})
    (tmp_path / "mountinfo").write_text(f"30 23 0:26 / {tmp_path}/cpu rw - cgroup cgroup rw,cpu\n")
    found = detect_hierarchies(str(tmp_path / "mountinfo"), "/nonexistent")
    cgroup = open_cgroup("/tare/c", found)
    cgroup.apply(LinuxResources(cpu=LinuxCPU(shares=200)))
    assert (tmp_path / "cpu/tare/c/cpu.shares").read_text().startswith("200")
    for resources, what in (
        (LinuxResources(memory=LinuxMemory(limit=1 << 20)), "memory limit"),
        (LinuxResources(pids=LinuxPids(limit=3)), "PIDs limit"),
        (LinuxResources(cpu=LinuxCPU(cpus="0")), "cpuset"),
        (LinuxResources(block_io=LinuxBlockIO(weight=100)), "Block I/O"),
        (LinuxResources(unified={"a.b": "c"}), "unified"),
    ):
        with pytest.raises(Unsupported, match=what):
            cgroup.apply(resources)
    with pytest.raises(Unsupported, match="freezer"):
        cgroup.freeze()


def test_check_drops_everything_on_a_kernel_without_support() -> None:
    """Each lost limit is a warning in Docker's words, and what is left can be applied."""
    disk = (LinuxThrottleDevice(8, 0, 1),)
    asked = LinuxResources(
        memory=LinuxMemory(limit=1 << 26, swap=1 << 27, reservation=1 << 25, swappiness=1, disable_oom_killer=True),
        cpu=LinuxCPU(shares=2, quota=1000, period=1000, cpus="0", mems="0"),
        pids=LinuxPids(limit=3),
        block_io=LinuxBlockIO(
            weight=10,
            weight_device=(LinuxWeightDevice(8, 0, 10),),
            throttle_read_bps_device=disk,
            throttle_write_bps_device=disk,
            throttle_read_iops_device=disk,
            throttle_write_iops_device=disk,
        ),
    )
    left, warnings = check_resources(asked, support=Support())
    assert left == LinuxResources()
    assert len(warnings) == 14  # the swap limit goes with the memory limit
    assert all(warning.startswith("Your kernel does not support ") for warning in warnings)
    assert warnings[0].endswith("Limitation discarded.")
    assert any(warning.endswith("Block I/O IOPS write limit discarded.") for warning in warnings)


def test_check_keeps_memory_without_swap() -> None:
    """Docker's best known warning: memory limited without swap."""
    asked = LinuxResources(memory=LinuxMemory(limit=1 << 26, swap=1 << 27))
    left, warnings = check_resources(asked, support=Support(memory_limit=True))
    assert left == LinuxResources(memory=LinuxMemory(limit=1 << 26))
    assert warnings == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted."
        " Memory limited without swap."
    ]


def test_support_on_v2(v2: Hierarchies) -> None:
    """What a v2 machine keeps: no swappiness, no OOM switch, no real-time budget."""
    support = detect_support(v2)
    assert support.memory_limit and support.swap_limit and support.memory_reservation and support.pids_limit
    assert support.cpu_quota and support.blkio_weight and support.blkio_throttle and support.hugetlb
    assert not (support.swappiness or support.oom_kill_disable or support.cpu_realtime)
    assert support.cpus == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 0), (2, 1), (3, 2), (512, 59), (1024, 100), (2048, 174), (262144, 10000)]
)
def test_shares_to_weight(shares: int, weight: int) -> None:
    """Both ends meet, and default becomes default."""
    assert weight_from_shares(shares) == weight


def test_weights_rise_with_shares() -> None:
    """More shares are never less weight."""
    weights = [weight_from_shares(shares) for shares in range(2, 262145, 37)]
    assert weights == sorted(weights)
    assert (io_weight_from_blkio(10), io_weight_from_blkio(1000)) == (1, 10000)
