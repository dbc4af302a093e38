"""From spec to plan: pure, so nothing here needs rights or a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import changed, default_spec, with_mounts

from tare.errors import InvalidArgument, Unsupported
from tare.kernel import mounts
from tare.oci.runtime_spec import (
    IDMapping,
    LinuxDevice,
    LinuxDeviceCgroup,
    LinuxIntelRdt,
    LinuxNamespace,
    LinuxResources,
    Mount,
    Process,
    Rlimit,
    Spec,
    User,
)
from tare.runtime.cgroups import Hierarchies, Hierarchy
from tare.runtime.mount_options import parse_mount_options
from tare.runtime.plan import Plan, build_plan, decode_plan, encode_plan
from tare.runtime.steps.devices import MakeDevices
from tare.runtime.steps.execute import Execute
from tare.runtime.steps.filesystems import BindMount, MountCgroup1, MountCgroup2
from tare.runtime.steps.roots import AttachRoot, CloneSource, IsolateMounts, MakeOverlay, Pivot
from tare.values.mount import DirectoryRoot, OverlayRoot

TWO_NAMESPACES = (LinuxNamespace("mount"), LinuxNamespace("uts"))
ROOT = Path("/bundle/rootfs")
V1 = Hierarchies(
    (Hierarchy(1, "/cg/cpu,cpuacct", ("cpu", "cpuacct")), Hierarchy(1, "/cg/systemd", ("name=systemd",))), None
)
V2 = Hierarchies((), Hierarchy(2, "/cg", ("cpu", "memory")))


def plan_of(spec: Spec, **options: Any) -> Plan:
    return build_plan(spec, container_id="c", **options)


def steps_of(plan: Plan, kind: type) -> list[Any]:
    return [step for step in (*plan.early, *plan.steps) if isinstance(step, kind)]


def test_a_plan_survives_its_encoded_form() -> None:
    """It is what crosses from one process to another."""
    plan = plan_of(default_spec(ROOT, "sh", cgroup="/x"), hierarchies=V1, user="web", group_add=("1",), init=True)
    assert decode_plan(encode_plan(plan)) == plan
    assert len(plan.describe()) == len(plan.early) + len(plan.steps)


def test_mounts_are_cut_off_before_the_root_is_attached_and_the_program_comes_last() -> None:
    """The order is what keeps the host safe."""
    kinds = [type(step) for step in plan_of(default_spec(ROOT)).steps]
    assert kinds[0] is IsolateMounts
    assert kinds.index(AttachRoot) < kinds.index(MakeDevices) < kinds.index(Pivot) == len(kinds) - 2
    assert kinds[-1] is Execute


def test_an_overlay_root_is_attached_where_the_spec_says_or_on_our_view_of_slash() -> None:
    """Hooks look at root.path; nothing needs a directory made for a mount."""
    overlay = OverlayRoot(("/l2", "/l1"), "/u", "/w", volatile=True)
    plan = plan_of(default_spec(ROOT), rootfs=overlay)
    assert steps_of(plan, MakeOverlay)[0].lower == ("/l2", "/l1")
    assert steps_of(plan, AttachRoot)[0].mount_point == str(ROOT)
    plan = plan_of(msgspec.structs.replace(default_spec(ROOT), root=None), rootfs=overlay)
    assert steps_of(plan, AttachRoot)[0].mount_point == "/"
    plan = plan_of(msgspec.structs.replace(default_spec(ROOT), root=None), rootfs=DirectoryRoot("/d"))
    assert steps_of(plan, CloneSource)[0].source == "/d"


def test_a_user_namespace_takes_host_paths_before_it_gives_up_rights() -> None:
    """Sources, root and layers may lie where only the host's root can go."""
    mapping = (IDMapping(0, 1000, 10),)
    spec = changed(
        with_mounts(default_spec(ROOT), Mount("/v", "bind", "/host", ("rbind",))),
        linux={
            "namespaces": (LinuxNamespace("mount"), LinuxNamespace("user"), LinuxNamespace("uts")),
            "uid_mappings": mapping,
            "gid_mappings": mapping,
        },
    )
    plan = plan_of(spec)
    assert {step.source for step in plan.early if isinstance(step, CloneSource)} == {str(ROOT), "/host"}
    assert plan.uid_map == "0 1000 10\n"
    assert steps_of(plan, MakeDevices)[0].bind


@pytest.mark.parametrize("word", ["rslave", "rshared", "shared", "slave"])
def test_a_bind_that_propagates_is_cloned_before_mounts_are_cut_off(word: str) -> None:
    """Afterwards it could be nobody's peer."""
    plan = plan_of(with_mounts(default_spec(ROOT), Mount("/v", "bind", "/host", ("rbind", word))))
    bind = steps_of(plan, BindMount)[0]
    assert bind.slot >= 0 and bind.recursive_propagation is word.startswith("rs")
    assert isinstance(plan.early[0], CloneSource)


def test_cgroup_mounts_show_only_the_containers_own() -> None:
    """v1: one directory each, with links for joined controllers; v2: the own cgroup where there is no namespace."""
    spec = default_spec(ROOT, cgroup="/x/c")
    step = steps_of(plan_of(spec, hierarchies=V1), MountCgroup1)[0]
    assert [h.directory for h in step.hierarchies] == ["/cg/cpu,cpuacct/x/c", "/cg/systemd/x/c"]
    assert step.links == {"cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct"}
    assert steps_of(plan_of(spec, hierarchies=V2), MountCgroup2)[0].directory == "/cg/x/c"


def test_the_specs_devices_replace_defaults_and_keep_their_mode() -> None:
    """A device named as a default one is made once."""
    device = LinuxDevice("c", "/dev/null", 1, 3, 0o600, 5, 6)
    nodes = steps_of(plan_of(changed(default_spec(ROOT), linux={"devices": (device,)})), MakeDevices)[0].nodes
    assert [(n.mode, n.uid, n.gid) for n in nodes if n.path == "/dev/null"] == [(0o600, 5, 6)]
    assert len(nodes) == 6


def test_device_rules_get_the_defaults_behind_them() -> None:
    """So that a deny-all spec can still make and use /dev/full and terminals; without rules there are none."""
    rules = LinuxResources(devices=(LinuxDeviceCgroup(allow=False, access="rwm"),))
    plan = plan_of(changed(default_spec(ROOT), linux={"resources": rules}))
    assert plan.resources is not None and plan.resources.devices is not None
    assert plan.resources.devices[0] == LinuxDeviceCgroup(allow=False, access="rwm")
    assert (1, 7) in {(rule.major, rule.minor) for rule in plan.resources.devices}
    plan = plan_of(changed(default_spec(ROOT), linux={"resources": LinuxResources()}))
    assert plan.resources == LinuxResources()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ro", "nosuid"), (mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID, 0)),
        (("ro", "rw"), (0, mounts.MOUNT_ATTR_RDONLY)),
        (("rw", "ro"), (mounts.MOUNT_ATTR_RDONLY, 0)),
        (("noatime",), (mounts.MOUNT_ATTR_NOATIME, mounts.MOUNT_ATTR__ATIME)),
        (("defaults", "exec"), (0, mounts.MOUNT_ATTR_NOEXEC)),
    ],
)
def test_mount_options_become_flags(words: tuple[str, ...], expected: tuple[int, int]) -> None:
    """The last of two that contradict wins."""
    options = parse_mount_options(words)
    assert (options.set, options.clear) == expected


def test_recursive_and_file_system_options_are_told_apart() -> None:
    """`rro` is about the mounts below, `mode=` about the file system, `rslave` about propagation."""
    options = parse_mount_options(("rbind", "rro", "mode=700", "rslave", "relatime"))
    assert options.bind and options.recursive_bind and options.recursive_set == mounts.MOUNT_ATTR_RDONLY
    assert options.data == ["mode=700"] and options.propagation == mounts.MS_SLAVE and options.recursive_propagation


def replace_process(**fields: Any) -> dict[str, Any]:
    return {"process": fields}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (replace_process(args=()), "args must not be empty"),
        (replace_process(cwd="etc"), "Cwd must be an absolute path"),
        (replace_process(args=("a\0b",)), "NUL"),
        (replace_process(user=User(uid=-1)), "out of range"),
        (replace_process(user=User(uid=0xFFFFFFFF)), "out of range"),
        (replace_process(oom_score_adj=1001), "oomScoreAdj out of range"),
        (replace_process(rlimits=(Rlimit("RLIMIT_NOPE", 1, 1),)), "invalid rlimit type: RLIMIT_NOPE"),
        ({"linux": {"sysctl": {"kernel.panic": "1"}}}, 'sysctl "kernel.panic" is not in a separate kernel namespace'),
        ({"linux": {"sysctl": {"net/../kernel/panic": "1"}}}, "invalid sysctl"),
        (
            {"linux": {"sysctl": {"net.ipv4.x": "1"}, "namespaces": (LinuxNamespace("mount"), LinuxNamespace("uts"))}},
            "hosts network",
        ),
        ({"linux": {"namespaces": (LinuxNamespace("mount"), LinuxNamespace("mount"))}}, "duplicated ns"),
        ({"linux": {"namespaces": (LinuxNamespace("mount"),)}}, "private UTS namespace"),
        ({"linux": {"uid_mappings": (IDMapping(0, 0, 1),)}}, "user namespace isn't enabled"),
        ({"linux": {"masked_paths": ("proc",)}}, "not absolute"),
        ({"mounts": (Mount("rel", "tmpfs"),)}, "not absolute"),
        ({"mounts": (Mount("/", "tmpfs"),)}, "can't be the root"),
        ({"mounts": (Mount("/x", "bind", "/a\0b", ("bind",)),)}, "NUL"),
        ({"mounts": (Mount("/x", "bind", "/a", ("bind", "mode=1")),)}, "invalid option"),
        ({"mounts": (Mount("/x", "a/b", "x"),)}, "invalid type"),
    ],
)
def test_a_spec_that_is_wrong_is_refused_by_the_field(change: dict[str, Any], text: str) -> None:
    """Before anything is made."""
    with pytest.raises(InvalidArgument, match=text):
        plan_of(changed(default_spec(ROOT), **change))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"linux": {"intel_rdt": LinuxIntelRdt(clos_id="x")}}, "linux.intelRdt"),
        ({"linux": {"mount_label": "label"}}, "linux.mountLabel"),
        ({"linux": {"namespaces": (LinuxNamespace("uts"),)}}, "without a mount namespace"),
        (
            {"mounts": (Mount("/x", "bind", "/a", ("bind", "idmap")),)},
            "the mount at /x with ids other than a new user namespace's",
        ),
    ],
)
def test_what_is_not_supported_says_so(change: dict[str, Any], text: str) -> None:
    """Never a silent no-op."""
    with pytest.raises(Unsupported, match=text):
        plan_of(changed(default_spec(ROOT), **change))


def test_a_spec_needs_a_process() -> None:
    """OCI allows none for `create`; we have nothing to hold then."""
    with pytest.raises(InvalidArgument, match="process must be set"):
        plan_of(msgspec.structs.replace(default_spec(ROOT), process=None))
    assert Process(cwd="/").args is None
