"""The doctor's judgements, for machines that this one is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tare.engine.doctor import Finding, Machine, diagnose, examine
from tare.kernel.capabilities import NAMES
from tare.kernel.features import Features
from tare.runtime.cgroups import Hierarchies, Hierarchy, Support

GOOD_FEATURES = Features(
    kernel_release="6.12.1",
    kernel_version=(6, 12),
    machine="x86_64",
    root=True,
    nested=False,
    host_user_namespace=True,
    systemd=True,
    capabilities=frozenset(NAMES),
    namespaces=frozenset({"mnt", "pid", "net", "uts", "ipc", "user", "cgroup", "time"}),
    user_namespaces=True,
    calls=frozenset({"open_tree", "move_mount", "fsopen", "openat2", "pidfd_open", "close_range", "clone3"}),
    overlay=True,
    overlay_lowerdir_plus=True,
    overlay_volatile=True,
    idmapped_mounts=True,
    seccomp=True,
    security_modules=("apparmor",),
    apparmor=True,
    selinux=False,
    nftables=True,
    bridge=True,
    veth=True,
    ipv4_forwarding=True,
    ipv6=True,
    data_filesystem="xfs",
    upper_ok=True,
    project_quotas=True,
    raise_rlimits=True,
    cpus=8,
)
V2 = Hierarchies((), Hierarchy(2, "/sys/fs/cgroup", ("cpu", "memory", "pids")))
FLAGS = {field.name: True for field in msgspec.structs.fields(Support) if field.name not in ("cpus", "mems")}
GOOD = Machine(GOOD_FEATURES, V2, Support(**FLAGS))


def examined(**changes: Any) -> dict[str, Finding]:
    features = msgspec.structs.replace(GOOD.features, **changes)
    return {finding.name: finding for finding in examine(msgspec.structs.replace(GOOD, features=features))}


def test_good_machine_has_only_good_findings() -> None:
    """Nothing to mend is said to be so."""
    assert {finding.level for finding in examine(GOOD)} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({"kernel_version": (4, 18)}, "kernel", "problem"),
        ({"root": False, "capabilities": frozenset()}, "rights", "problem"),
        ({"capabilities": frozenset(NAMES) - {"CAP_SYS_ADMIN"}}, "rights", "problem"),
        ({"raise_rlimits": False}, "resource limits", "warning"),
        ({"namespaces": frozenset({"mnt", "cgroup", "time"})}, "namespaces", "problem"),
        ({"namespaces": GOOD_FEATURES.namespaces - {"time"}}, "time namespaces", "warning"),
        ({"namespaces": GOOD_FEATURES.namespaces - {"cgroup"}}, "cgroup namespaces", "warning"),
        ({"user_namespaces": False}, "user namespaces", "warning"),
        ({"calls": GOOD_FEATURES.calls - {"fsopen"}}, "mount calls", "warning"),
        ({"calls": GOOD_FEATURES.calls - {"openat2"}}, "openat2", "problem"),
        ({"calls": GOOD_FEATURES.calls - {"pidfd_open"}}, "process calls", "warning"),
        ({"overlay": False}, "overlay", "problem"),
        ({"data_filesystem": "nfs", "upper_ok": False}, "data root", "problem"),
        ({"project_quotas": False}, "disk quotas", "warning"),
        ({"seccomp": False}, "seccomp", "problem"),
        ({"apparmor": False}, "security module", "warning"),
        ({"nested": True}, "nesting", "warning"),
        ({"veth": False}, "bridge network", "warning"),
        ({"nftables": False}, "nftables", "warning"),
        ({"ipv4_forwarding": False}, "forwarding", "warning"),
        ({"ipv6": False}, "IPv6", "warning"),
    ],
)
def test_each_lack_is_found(changes: dict[str, Any], name: str, level: str) -> None:
    """One lack, one finding that is not ok, which tells its cost."""
    bad = [finding for finding in examined(**changes).values() if finding.level != "ok"]
    assert [(finding.name, finding.level) for finding in bad] == [(name, level)]
    assert bad[0].found and bad[0].costs


def test_each_lost_limit_is_found() -> None:
    """A kernel that keeps no limit: a warning for each, naming the option that it costs."""
    bare = msgspec.structs.replace(GOOD, support=Support())
    warnings = [finding for finding in examine(bare) if finding.level == "warning"]
    assert len(warnings) == 8
    assert all("--" in finding.costs and finding.remedy for finding in warnings)


def test_no_cgroups_is_a_problem() -> None:
    """Nothing can be limited or counted."""
    bare = msgspec.structs.replace(GOOD, hierarchies=Hierarchies((), None), support=Support())
    assert [finding.name for finding in examine(bare) if finding.level == "problem"] == ["cgroups"]


def test_this_machine_can_run_containers() -> None:
    """The doctor finds no problem on a machine where this suite runs."""
    assert [finding for finding in diagnose() if finding.level == "problem"] == []
