"""What this machine allows, what is missing, what that costs and how to mend it, in plain English.

`examine` is pure: it judges what was found elsewhere, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from tare.kernel.features import Features, probe
from tare.runtime.cgroups import Hierarchies, Support, detect_hierarchies, detect_support

Level = Literal["ok", "warning", "problem"]

OLDEST_KERNEL = (5, 8)
_NEEDED_NAMESPACES = {"mnt": "mount", "pid": "pid", "net": "network", "uts": "uts", "ipc": "ipc"}
_NEEDED_CAPABILITIES = {
    "CAP_SYS_ADMIN": "make namespaces and mounts",
    "CAP_NET_ADMIN": "set up container networks",
    "CAP_MKNOD": "make device nodes",
    "CAP_SETUID": "run as the users that images name",
    "CAP_SETGID": "run with the groups that images name",
    "CAP_CHOWN": "give files in images to their owners",
    "CAP_DAC_OVERRIDE": "read and write images' files",
    "CAP_SYS_CHROOT": "give containers their own root",
}


class Finding(msgspec.Struct, frozen=True):
    """One judgement. costs and remedy are empty where level is ok. A problem keeps containers from running."""

    name: str
    level: Level
    found: str
    costs: str = ""
    remedy: str = ""


class Machine(msgspec.Struct, frozen=True):
    """All that findings are judged from."""

    features: Features
    hierarchies: Hierarchies
    support: Support


def diagnose(data_root: str = "/") -> list[Finding]:
    """Looks at this machine and judges it."""
    hierarchies = detect_hierarchies()
    return examine(Machine(probe(data_root), hierarchies, detect_support(hierarchies)))


def examine(machine: Machine) -> list[Finding]:
    """One finding for each thing looked at, in the order in which a reader wants them."""
    return [finding for judge in _JUDGES for finding in judge(machine)]


def _kernel(machine: Machine) -> list[Finding]:
    features = machine.features
    found = f"Linux {features.kernel_release} on {features.machine}"
    if features.kernel_version < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        return [
            Finding(
                "kernel",
                "problem",
                found,
                f"Tare needs Linux {oldest} or newer; containers may fail to start.",
                "Upgrade the kernel.",
            )
        ]
    return [Finding("kernel", "ok", found)]


def _rights(machine: Machine) -> list[Finding]:
    features = machine.features
    lost = [name for name in _NEEDED_CAPABILITIES if name not in features.capabilities]
    if not features.root:
        return [
            Finding(
                "rights",
                "problem",
                "not running as root",
                "No container can be started by this user.",
                "Start the daemon as root, or put the user into the group of its socket and let it talk to the daemon.",
            )
        ]
    if lost:
        what = "; ".join(f"{name} to {_NEEDED_CAPABILITIES[name]}" for name in lost)
        return [
            Finding(
                "rights",
                "problem",
                f"root without {', '.join(lost)}",
                f"Missing: {what}.",
                "If Tare itself runs in a container, give that one these capabilities (or run it privileged).",
            )
        ]
    return [Finding("rights", "ok", "root with all capabilities that containers need")]


def _limits_of_rights(machine: Machine) -> list[Finding]:
    features = machine.features
    if features.raise_rlimits:
        return [Finding("resource limits", "ok", "hard limits can be raised (CAP_SYS_RESOURCE)")]
    return [
        Finding(
            "resource limits",
            "warning",
            "CAP_SYS_RESOURCE is missing",
            "--ulimit can't go above the daemon's own hard limits, and --oom-score-adj not below its own value.",
            "Start the daemon with CAP_SYS_RESOURCE, or raise its own limits (LimitNOFILE= in its unit).",
        )
    ]


def _namespaces(machine: Machine) -> list[Finding]:
    features = machine.features
    findings = []
    missing = [word for name, word in _NEEDED_NAMESPACES.items() if name not in features.namespaces]
    if missing:
        findings.append(
            Finding(
                "namespaces",
                "problem",
                f"the kernel has no {', '.join(missing)} namespaces",
                "Containers can't be kept apart, so none is started.",
                "Use a kernel built with CONFIG_NAMESPACES and its parts.",
            )
        )
    else:
        findings.append(Finding("namespaces", "ok", ", ".join(sorted(features.namespaces))))
    for name, cost in (
        ("cgroup", "Containers see the host's cgroup paths; --cgroupns private is refused."),
        ("time", "Containers share the host's monotonic clock."),
    ):
        if name not in features.namespaces:
            text = f"the kernel has no {name} namespaces"
            findings.append(Finding(f"{name} namespaces", "warning", text, cost, "Use a newer kernel."))
    if not features.user_namespaces:
        findings.append(
            Finding(
                "user namespaces",
                "warning",
                "no user namespaces can be made",
                "Containers can't have user ids of their own (--userns), and rootless use is not possible.",
                "Raise the sysctl user.max_user_namespaces; on Debian see kernel.unprivileged_userns_clone, on Ubuntu"
                " kernel.apparmor_restrict_unprivileged_userns.",
            )
        )
    return findings


def _system_calls(machine: Machine) -> list[Finding]:
    calls = machine.features.calls
    findings = []
    mounting = {"open_tree", "move_mount", "fsopen"} - calls
    if mounting:
        findings.append(
            Finding(
                "mount calls",
                "warning",
                f"{', '.join(sorted(mounting))} are not available",
                "Mounts are made by path, the older way: starting is a little slower.",
                "Use Linux 5.2 or newer; if Tare runs in a container, its seccomp profile must allow these calls.",
            )
        )
    if "openat2" not in calls:
        findings.append(
            Finding(
                "openat2",
                "problem",
                "openat2 is not available",
                "Paths inside containers can't be opened safely, so copying and mounting are refused.",
                "Use Linux 5.6 or newer; if Tare runs in a container, its seccomp profile must allow openat2.",
            )
        )
    rest = {"pidfd_open": "Stopping a process by its number could hit another one.", "close_range": ""}
    lost = [call for call in rest if call not in calls]
    if lost:
        costs = " ".join(rest[call] for call in lost if rest[call]) or "Starting is a little slower."
        findings.append(
            Finding("process calls", "warning", f"{', '.join(lost)} are not available", costs, "Use a newer kernel.")
        )
    if not findings:
        findings.append(Finding("system calls", "ok", "all newer calls that Tare uses are there"))
    return findings


def _storage(machine: Machine) -> list[Finding]:
    features = machine.features
    findings = []
    if not features.overlay:
        findings.append(
            Finding(
                "overlay",
                "problem",
                "the kernel has no overlay file system",
                "Each container would need a full copy of its image.",
                "Load the module (modprobe overlay) or use a kernel with CONFIG_OVERLAY_FS.",
            )
        )
    elif not features.upper_ok:
        findings.append(
            Finding(
                "data root",
                "problem",
                f"the data root is on {features.data_filesystem}",
                "Overlay can't keep a container's changes on this kind of file system.",
                "Move the data root (--data-root) to ext4, xfs or btrfs.",
            )
        )
    else:
        newer = features.overlay_lowerdir_plus and features.overlay_volatile
        kind = "with" if newer else "without all of"
        findings.append(
            Finding("overlay", "ok", f"on {features.data_filesystem}, {kind} its newer options (lowerdir+, volatile)")
        )
    if not features.project_quotas:
        findings.append(
            Finding(
                "disk quotas",
                "warning",
                "the data root's file system has no project quotas",
                "A container's size can't be limited (--storage-opt size=…).",
                "Use xfs mounted with prjquota, or ext4 with the project and quota features.",
            )
        )
    return findings


def _cgroups(machine: Machine) -> list[Finding]:
    hierarchies, support = machine.hierarchies, machine.support
    if hierarchies.mode == "none":
        return [
            Finding(
                "cgroups",
                "problem",
                "no cgroup file system is mounted",
                "Containers can't be limited, paused or counted, so none is started.",
                "Mount cgroup2 at /sys/fs/cgroup.",
            )
        ]
    carried = sorted({name for hierarchy in hierarchies.v1 for name in hierarchy.controllers})
    carried += sorted(hierarchies.v2.controllers) if hierarchies.v2 else []
    findings = [Finding("cgroups", "ok", f"{hierarchies.mode}: {', '.join(carried) or 'no controller'}")]
    losses = (
        (support.memory_limit, "memory limit", "--memory is dropped with a warning.", "cgroup_enable=memory"),
        (support.swap_limit, "swap limit", "--memory limits memory but not swap.", "swapaccount=1"),
        (
            support.pids_limit,
            "process limit",
            "--pids-limit is dropped: a fork bomb is felt outside.",
            "",
        ),
        (support.cpu_shares, "cpu shares", "--cpu-shares is dropped with a warning.", ""),
        (support.cpu_quota, "cpu quota", "--cpus is refused.", ""),
        (support.cpuset, "cpuset", "--cpuset-cpus and --cpuset-mems are dropped with a warning.", ""),
        (support.blkio_weight, "block I/O weight", "--blkio-weight is dropped with a warning.", ""),
        (support.blkio_throttle, "block I/O throttle", "--device-read-bps and its like are dropped.", ""),
    )
    for there, name, costs, parameter in losses:
        if not there:
            remedy = "Enable the controller (cgroup.subtree_control of the root, or systemd's Delegate=)."
            if parameter:
                remedy += f" On cgroup v1, boot with {parameter}."
            findings.append(Finding(name, "warning", "this kernel doesn't offer it here", costs, remedy))
    if hierarchies.v1 and "freezer" not in carried:
        text = "docker pause is refused, and killing all processes may take several tries."
        findings.append(
            Finding("freezer", "warning", "the freezer controller is not mounted", text, "Mount it, or use cgroup v2.")
        )
    return findings


def _security(machine: Machine) -> list[Finding]:
    features = machine.features
    findings = []
    if features.seccomp:
        findings.append(Finding("seccomp", "ok", "system calls are filtered"))
    else:
        findings.append(
            Finding(
                "seccomp",
                "problem",
                "the kernel has no seccomp filters",
                "Containers could make every system call, so they are started with --security-opt seccomp=unconfined"
                " only.",
                "Use a kernel with CONFIG_SECCOMP_FILTER.",
            )
        )
    if features.apparmor or features.selinux:
        active = "AppArmor" if features.apparmor else "SELinux"
        findings.append(Finding("security module", "ok", f"{active} is active"))
    else:
        findings.append(
            Finding(
                "security module",
                "warning",
                "neither AppArmor nor SELinux is active",
                "One wall fewer around containers. 32-bit programs can open socket families that seccomp keeps from"
                " 64-bit ones (AF_ALG, AF_VSOCK), since socketcall hides its arguments.",
                "Boot with a security module, or with the algif_aead and vsock modules blocked.",
            )
        )
    if features.nested:
        findings.append(
            Finding(
                "nesting",
                "warning",
                "Tare itself seems to run in a container",
                "Limits of the outer container hold for all inner ones together.",
                "",
            )
        )
    return findings


def _network(machine: Machine) -> list[Finding]:
    features = machine.features
    missing = [name for name, there in (("bridge", features.bridge), ("veth", features.veth)) if not there]
    findings = []
    if missing:
        findings.append(
            Finding(
                "bridge network",
                "warning",
                f"the kernel can't make {' and '.join(missing)} devices for us",
                "Only --network none and --network host work.",
                "Load the modules bridge and veth, and start the daemon with CAP_NET_ADMIN.",
            )
        )
    if not features.nftables:
        findings.append(
            Finding(
                "nftables",
                "warning",
                "nftables can't be used",
                "No published ports (-p) and no way out of the bridge network to other machines.",
                "Load the module nf_tables, and start the daemon with CAP_NET_ADMIN.",
            )
        )
    if not findings:
        findings.append(Finding("network", "ok", "bridge, veth and nftables work"))
    if not features.ipv4_forwarding:
        findings.append(
            Finding(
                "forwarding",
                "warning",
                "net.ipv4.ip_forward is off",
                "Containers reach nothing beyond this machine until the daemon turns it on.",
                "sysctl net.ipv4.ip_forward=1",
            )
        )
    if not features.ipv6:
        findings.append(
            Finding("IPv6", "warning", "the kernel has no IPv6", "Networks with --ipv6 are refused.", "Boot with IPv6.")
        )
    return findings


_JUDGES: tuple[Callable[[Machine], list[Finding]], ...] = (
    _kernel,
    _rights,
    _limits_of_rights,
    _namespaces,
    _system_calls,
    _storage,
    _cgroups,
    _security,
    _network,
)
