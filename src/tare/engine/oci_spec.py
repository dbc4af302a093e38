"""From a container's record to the OCI spec that the runtime executes: the whole, and the process in it.

Defaults are Docker's (moby daemon/pkg/oci/defaults.go and daemon/oci_linux.go, 2026).
"""

from __future__ import annotations

import os

import msgspec

from tare.engine import mounts, user_namespaces
from tare.engine.engine import EngineSettings
from tare.engine.oci_devices import device_nodes, device_rules
from tare.engine.oci_resources import resources
from tare.engine.oci_security import Security, capabilities
from tare.engine.options import ExecOptions, HostOptions
from tare.engine.records import Container
from tare.oci.runtime_spec import (
    OCI_VERSION,
    ConsoleSize,
    IDMapping,
    Linux,
    LinuxNamespace,
    Mount,
    Process,
    Rlimit,
    Root,
    Spec,
)
from tare.runtime.plan_mounts import PROCESS_OPTION

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the spec needs beyond the record.

    joined: namespaces of other containers, by OCI type, as paths. thermal_paths: the throttle directories of this
    machine's CPUs. cgroup_path: where the cgroup is. root_path: an empty directory that the root is
    mounted on, in the container's own mount namespace. time_namespace: whether the kernel has them. shm_pid: a process
    whose /dev/shm is this container's, too.
    """

    cgroup_path: str
    root_path: str
    joined: dict[str, str] = {}
    thermal_paths: tuple[str, ...] = ()
    time_namespace: bool = True
    shm_pid: int = 0
    layers: dict[str, tuple[str, ...]] = {}
    cgroup_private: bool = True


def build_spec(settings: EngineSettings, container: Container, around: Surroundings, security: Security) -> Spec:
    """The OCI spec of a container's first process and everything around it."""
    host = container.host
    return Spec(
        oci_version=OCI_VERSION,
        root=Root(path=around.root_path, readonly=host.readonly_rootfs),
        process=_process(settings, container, security),
        hostname="" if host.uts_mode == "host" else container.config.hostname,
        domainname="" if host.uts_mode == "host" else container.config.domainname,
        mounts=tuple(_mounts(container, around)),
        annotations=host.annotations,
        linux=Linux(
            namespaces=_namespaces(container, around),
            uid_mappings=_mappings(container.ids.uid if container.ids is not None else None),
            gid_mappings=_mappings(container.ids.gid if container.ids is not None else None),
            devices=device_nodes(host),
            cgroups_path=around.cgroup_path,
            resources=resources(host, device_rules(host)),
            sysctl=_sysctls(container),
            seccomp=security.seccomp,
            rootfs_propagation="",
            masked_paths=_paths(host, security, host.masked_paths, (*MASKED_PATHS, *around.thermal_paths)),
            readonly_paths=_paths(host, security, host.readonly_paths, READONLY_PATHS),
        ),
    )


def _process(settings: EngineSettings, container: Container, security: Security) -> Process:
    config, host = container.config, container.host
    size = host.console_size
    return Process(
        cwd=config.working_dir or "/",
        args=(container.path, *container.args),
        env=environment(container, config.env or (), tty=config.tty),
        terminal=config.tty,
        console_size=ConsoleSize(height=size[0], width=size[1]) if size and any(size) else None,
        capabilities=capabilities(host),
        rlimits=rlimits(settings, host),
        no_new_privileges=security.no_new_privileges,
        apparmor_profile=security.apparmor_profile,
        oom_score_adj=host.oom_score_adj,
    )


def exec_process(settings: EngineSettings, container: Container, options: ExecOptions, security: Security) -> Process:
    """The OCI process of an exec in a container."""
    host = container.host
    if options.privileged:
        host = msgspec.structs.replace(host, privileged=True)
    size = options.console_size
    env = (*(container.config.env or ()), *(options.env or ()))
    return Process(
        cwd=options.working_dir or container.config.working_dir or "/",
        args=options.cmd,
        env=environment(container, env, tty=options.tty),
        terminal=options.tty,
        console_size=ConsoleSize(height=size[0], width=size[1]) if size and any(size) else None,
        capabilities=capabilities(host),
        rlimits=rlimits(settings, host),
        no_new_privileges=security.no_new_privileges and not options.privileged,
        apparmor_profile="unconfined" if options.privileged else security.apparmor_profile,
        oom_score_adj=host.oom_score_adj,
    )


def environment(container: Container, given: tuple[str, ...], *, tty: bool) -> tuple[str, ...]:
    """The process's environment: Docker's defaults, overridden by what was given; a name without `=` unsets."""
    values: dict[str, str] = {"PATH": DEFAULT_PATH}
    if container.config.hostname:
        values["HOSTNAME"] = container.config.hostname
    if tty:
        values["TERM"] = "xterm"
    for variable in given:
        name, equals, value = variable.partition("=")
        if equals:
            values[name] = value
        else:
            values.pop(name, None)
    return tuple(f"{name}={value}" for name, value in values.items())


def rlimits(settings: EngineSettings, host: HostOptions) -> tuple[Rlimit, ...] | None:
    """Limits of the process: the engine's defaults, then the container's."""
    limits = dict(settings.default_ulimits)
    for limit in host.ulimits or ():
        limits[limit.name] = (limit.soft, limit.hard)
    unlimited = (1 << 64) - 1
    found = tuple(
        Rlimit(
            type=f"RLIMIT_{name.upper()}",
            soft=unlimited if soft == -1 else soft,
            hard=unlimited if hard == -1 else hard,
        )
        for name, (soft, hard) in limits.items()
    )
    return found or None


def _mappings(first: int | None) -> tuple[IDMapping, ...] | None:
    return None if first is None else (IDMapping(0, first, user_namespaces.IDS),)


def _namespaces(container: Container, around: Surroundings) -> tuple[LinuxNamespace, ...]:
    host = container.host
    found = [LinuxNamespace(type="mount")]
    if container.ids is not None:
        found.append(LinuxNamespace(type="user", path=around.joined.get("user", "")))
    kinds = (
        ("pid", host.pid_mode == "host"),
        ("uts", host.uts_mode == "host"),
        ("ipc", host.ipc_mode == "host"),
        ("network", host.network_mode == "host"),
        ("cgroup", not around.cgroup_private),
        ("time", not around.time_namespace),
    )
    for kind, left_out in kinds:
        if kind in around.joined:
            found.append(LinuxNamespace(type=kind, path=around.joined[kind]))  # type: ignore[arg-type]
        elif not left_out:
            found.append(LinuxNamespace(type=kind))  # type: ignore[arg-type]
    return tuple(found)


def _sysctls(container: Container) -> dict[str, str] | None:
    host = container.host
    found: dict[str, str] = {}
    if host.network_mode != "host" and not host.network_mode.startswith("container:"):
        # what an unprivileged user may do in a network of its own harms nobody (moby#41030)
        found["net.ipv4.ip_unprivileged_port_start"] = "0"
        if container.ids is not None:
            found["net.ipv4.ping_group_range"] = f"0 {user_namespaces.IDS - 1}"  # no others exist there
        elif not host.userns_mode:
            found["net.ipv4.ping_group_range"] = "0 2147483647"
    found.update(host.sysctls or {})
    return found or None


def _paths(
    host: HostOptions, security: Security, given: tuple[str, ...] | None, default: tuple[str, ...]
) -> tuple[str, ...] | None:
    if host.privileged or security.system_paths_open:
        return None
    return default if given is None else given


def _mounts(container: Container, around: Surroundings) -> list[Mount]:
    host = container.host
    privileged = host.privileged
    access = ("rw",) if privileged else ("ro",)
    found = [
        Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", *access)),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*access, "nosuid", "noexec", "nodev")),
        *_ipc_mounts(host, around),
    ]
    own = mounts.oci_mounts(host, container.mounts, around.layers)
    covered = {mount.destination for mount in own}
    files = []
    for name in ("resolv.conf", "hostname", "hosts"):
        if f"/etc/{name}" not in covered:
            options = ("rbind", "rprivate", "ro" if host.readonly_rootfs else "rw")
            files.append(Mount(f"/etc/{name}", "bind", f"{container.directory}/{name}", options))
    return found + mounts.parents_first([*files, *own])  # a volume at /etc must not hide /etc/hosts


def _ipc_mounts(host: HostOptions, around: Surroundings) -> list[Mount]:
    queues = Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev"))
    if host.ipc_mode == "host":
        if os.path.isdir("/dev/mqueue"):  # not on every host; mounted anew, the namespace's queues are the same
            queues = Mount("/dev/mqueue", "bind", "/dev/mqueue", ("rbind", "nosuid", "noexec", "nodev"))
        return [
            queues,
            Mount("/dev/shm", "bind", "/dev/shm", ("rbind", "nosuid", "noexec", "nodev")),
        ]
    found = [queues]
    if around.shm_pid:
        options = ("bind", "nosuid", "noexec", "nodev", f"{PROCESS_OPTION}{around.shm_pid}")
        found.append(Mount("/dev/shm", "bind", "/dev/shm", options))
    elif host.ipc_mode != "none":
        size = f"size={host.shm_size}"
        found.append(Mount("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", size)))
    return found
