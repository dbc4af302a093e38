"""`state`, `list`, `features` and `spec`: what only tells."""

from __future__ import annotations

import os

import msgspec

from tare.errors import Conflict, InvalidArgument
from tare.kernel import capabilities
from tare.kernel.namespaces import NAMESPACES
from tare.oci.runtime_spec import (
    OCI_VERSION,
    Capabilities,
    Linux,
    LinuxDeviceCgroup,
    LinuxNamespace,
    LinuxResources,
    Mount,
    Process,
    Rlimit,
    Root,
    Spec,
    format_spec,
)
from tare.runtime.arguments import parse_arguments
from tare.runtime.mount_options import option_names
from tare.runtime.store import ContainerStore

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_QUIET = ("nosuid", "noexec", "nodev")
_DEVPTS = ("newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
    "/sys/devices/virtual/powercap",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def _print(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def state(store: ContainerStore, words: list[str]) -> int:
    """Prints the state of a container."""
    record = store.load(parse_arguments(words, {}, {}).only_container_id())
    _print(store.state(record))
    return 0


def list_containers(store: ContainerStore, words: list[str]) -> int:
    """Prints all containers."""
    arguments = parse_arguments(words, {"format": True, "quiet": False}, {"f": "format", "q": "quiet"})
    states = [store.state(record) for record in store.list()]
    layout = arguments.get("format", "table")
    if arguments.has("quiet"):
        for one in states:
            print(one.id)
    elif layout == "json":
        print(msgspec.json.encode(states).decode())
    elif layout == "table":
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        rows += [(s.id, str(s.pid), s.status, s.bundle, s.created, "root") for s in states]
        widths = [max(len(row[i]) for row in rows) + 3 for i in range(5)]
        for row in rows:
            print("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[5])
    else:
        raise InvalidArgument(f"invalid format option: {layout}")
    return 0


def features(store: ContainerStore, words: list[str]) -> int:
    """Prints what this runtime can do (the specification's features.md)."""
    parse_arguments(words, {}, {})
    last = capabilities.last_capability()
    _print(
        {
            "ociVersionMin": "1.0.0",
            "ociVersionMax": OCI_VERSION,
            "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
            "mountOptions": option_names(),
            "linux": {
                "namespaces": sorted(NAMESPACES),
                "capabilities": list(capabilities.NAMES[: last + 1]),
                "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
                "seccomp": {
                    "enabled": True,
                    "actions": [
                        *("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"),
                        *("SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"),
                    ],
                },
                "apparmor": {"enabled": os.path.isdir("/sys/kernel/security/apparmor")},
                "selinux": {"enabled": os.path.isdir("/sys/fs/selinux")},
                "intelRdt": {"enabled": False},
                "mountExtensions": {"idmap": {"enabled": False}},
            },
        }
    )
    return 0


def default_spec() -> Spec:
    """A spec to start from: `sh` in `rootfs`, with few rights."""
    mounts = (
        Mount("/proc", "proc", "proc"),
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            "/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
        ),
        Mount("/dev/shm", "tmpfs", "shm", (*_QUIET, "mode=1777", "size=65536k")),
        Mount("/dev/mqueue", "mqueue", "mqueue", _QUIET),
        Mount("/sys", "sysfs", "sysfs", (*_QUIET, "ro")),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*_QUIET, "relatime", "ro")),
    )
    process = Process(
        cwd="/",
        args=("sh",),
        env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"),
        terminal=True,
        capabilities=Capabilities(bounding=_CAPABILITIES, effective=_CAPABILITIES, permitted=_CAPABILITIES),
        rlimits=(Rlimit("RLIMIT_NOFILE", 1024, 1024),),
        no_new_privileges=True,
    )
    kinds = ("pid", "network", "ipc", "uts", "mount", "cgroup")
    linux = Linux(
        namespaces=tuple(LinuxNamespace(kind) for kind in kinds),  # type: ignore[arg-type]
        resources=LinuxResources(devices=(LinuxDeviceCgroup(allow=False, access="rwm"),)),
        masked_paths=_MASKED,
        readonly_paths=_READONLY,
    )
    return Spec(OCI_VERSION, Root("rootfs", True), process, "tare", mounts=mounts, linux=linux)


def spec(store: ContainerStore, words: list[str]) -> int:
    """Writes a config.json to start from."""
    arguments = parse_arguments(words, {"bundle": True, "rootless": False}, {"b": "bundle"})
    if arguments.has("rootless"):
        raise InvalidArgument("spec --rootless is not supported")
    path = f"{arguments.get('bundle', '.')}/config.json"
    try:
        with open(path, "xb") as file:
            file.write(format_spec(default_spec()))
    except FileExistsError:
        raise Conflict(f"File {path} exists. Remove it first") from None
    return 0
