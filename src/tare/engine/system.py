"""version and info: what this engine is, and what it runs on."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
import socket
import sys

import tare
from tare.engine.engine import Engine, in_thread
from tare.engine.log_options import DRIVERS
from tare.engine.records import EngineInfo, EngineVersion
from tare.engine.stats import memory_total_bytes
from tare.kernel.apparmor import has_apparmor
from tare.runtime.cgroups import detect_support, known_hierarchies
from tare.values.timestamps import now_ns

API_VERSION = "1.55"
MIN_API_VERSION = "1.24"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """The machine's architecture by Go's name, as images have it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def engine_version(engine: Engine) -> EngineVersion:
    """What version answers."""
    return EngineVersion(
        version=tare.__version__,
        api_version=API_VERSION,
        min_api_version=MIN_API_VERSION,
        os="linux",
        arch=architecture(),
        kernel_version=platform.release(),
        build_time="",
        git_commit="",
        python_version=platform.python_version(),
    )


async def engine_info(engine: Engine) -> EngineInfo:
    """What info answers."""
    states = [container.state for container in engine.containers]
    support = detect_support()
    hierarchies = known_hierarchies()
    images = await in_thread(engine.images.all)
    return EngineInfo(
        id=engine.settings.engine_id,
        name=socket.gethostname(),
        containers_running=sum(state.running and not state.paused for state in states),
        containers_paused=sum(state.paused for state in states),
        containers_stopped=sum(not state.running for state in states),
        images=len(images),
        driver="overlay2",
        driver_status=_driver_status(engine),
        data_root=str(engine.settings.data_root),
        memory_total_bytes=memory_total_bytes(),
        cpus=os.cpu_count() or 1,
        kernel_version=platform.release(),
        operating_system=_os_release().get("PRETTY_NAME", "Linux"),
        os_version=_os_release().get("VERSION_ID", ""),
        architecture=platform.machine(),
        server_version=tare.__version__,
        cgroup_driver="cgroupfs",
        cgroup_version="2" if hierarchies.mode == "v2" else "1",
        system_time_ns=now_ns(),
        security_options=_security_options(engine),
        warnings=tuple(engine.network.warnings()),
        labels=engine.settings.labels,
        debug=engine.settings.debug,
        file_descriptors=len(os.listdir("/proc/self/fd")),
        tasks=len(asyncio.all_tasks()),
        event_listeners=engine.events.followers,
        memory_limit=support.memory_limit,
        swap_limit=support.swap_limit,
        cpu_cfs_period=support.cpu_quota,
        cpu_cfs_quota=support.cpu_quota,
        cpu_shares=support.cpu_shares,
        cpu_set=support.cpuset,
        pids_limit=support.pids_limit,
        oom_kill_disable=support.oom_kill_disable,
        ipv4_forwarding=_read_flag("/proc/sys/net/ipv4/ip_forward"),
        runtimes={"tare": sys.executable},
        default_runtime=engine.settings.default_runtime,
        init_binary="tare",
        live_restore=True,
        log_drivers=DRIVERS,
        insecure_registries=engine.registries.settings.insecure,
        registry_mirrors=engine.registries.settings.mirrors,
    )


def _driver_status(engine: Engine) -> tuple[tuple[str, str], ...]:
    return ("Backing Filesystem", _filesystem(str(engine.settings.data_root))), ("Supports d_type", "true")


def _security_options(engine: Engine) -> tuple[str, ...]:
    return (
        *(("name=apparmor",) if has_apparmor() else ()),
        "name=seccomp,profile=builtin",
        *(("name=userns",) if engine.settings.userns_remap is not None else ()),
        "name=cgroupns",  # a namespace of its own is what a container gets unless it asks for the host's
    )


@functools.cache
def _os_release() -> dict[str, str]:
    return platform.freedesktop_os_release() if os.path.exists("/etc/os-release") else {}


def _read_flag(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read().strip() == b"1"
    except OSError:
        return False


def _filesystem(path: str) -> str:
    """The kind of file system that holds path: the longest mount point above it in /proc/self/mountinfo."""
    best, kind = "", "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            point = left.split()[4]
            if path.startswith(point) and len(point) >= len(best):
                best, kind = point, right.split()[0]
    return {"ext4": "extfs", "ext3": "extfs", "ext2": "extfs"}.get(kind, kind)
