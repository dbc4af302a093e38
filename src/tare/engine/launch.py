"""From a stored container to a running one: network, files, spec, plan, monitor. The one way in which containers start.

    run directory → /etc files → network → spec → plan → monitor reports → state stored → watched until it ends

Whatever fails takes back all that was done before it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
from pathlib import Path

import msgspec

from tare import faults
from tare.engine import (
    container_volumes,
    disk_limit,
    etc_files,
    health_rules,
    image_mounts,
    links,
    log_shipping,
    mounts,
    network_link,
    user_namespaces,
)
from tare.engine.cgroup_end import clear_cgroup
from tare.engine.check import network_kind
from tare.engine.engine import Engine, Live
from tare.engine.log_options import log_settings
from tare.engine.oci_security import parse_security
from tare.engine.oci_spec import Surroundings, build_spec
from tare.engine.records import Container
from tare.errors import Conflict, Forbidden, InvalidArgument, NotFound, ResourceExhausted
from tare.network.records import Endpoint
from tare.runtime import messages
from tare.runtime.cgroups import known_hierarchies
from tare.runtime.create import StartFailed
from tare.runtime.monitor_client import MonitorLink
from tare.runtime.plan import build_plan, encode_plan
from tare.runtime.seccomp import compile_filter
from tare.values.mount import OverlayRoot

THERMAL = "/sys/devices/system/cpu"


async def launch(engine: Engine, container: Container) -> Container:
    """Starts a container that isn't running; returns its record in the running state.

    The caller holds the container's lock. Raises InvalidArgument with Docker's text when the command can't be run
    (the record then holds exit code 126 or 127), Conflict, ResourceExhausted, Unavailable, Internal.
    """
    if container.leaving:
        raise Conflict(f'container "{container.name}" is being moved; tare move --abort gives that up')
    async with container_volumes.mounted(engine, container), contextlib.AsyncExitStack() as undo:
        container = user_namespaces.assigned(engine, container)
        _make_run_dir(engine.run_dir(container.id), undo)
        faults.point("engine.start.directory")
        endpoint = await _attach(engine, container, undo)
        faults.point("engine.start.network")
        mounts.prepare_sources(container.host)
        mounts.check_propagation(container.mounts)
        etc_files.write(engine, container, endpoint)
        undo.callback(clear_cgroup, engine, container.id)  # a creator that was killed leaves it
        link = _launch_monitor(engine, container, endpoint)
        undo.callback(link.close)
        faults.point("engine.start.launched")
        started = await _wait_started(engine, container, link)
        undo.callback(link.close_pidfd)
        undo.callback(link.send_signal, signal.SIGKILL)
        faults.point("engine.start.running")
        container = _store_running(engine, container.id, started, endpoint)
        undo.pop_all()
    container_volumes.publish_mounted(engine, container)
    network_link.publish(engine.events, container, "connect")
    engine.live[container.id] = live = Live(link, started.pid)
    engine.spawn(engine.watch(engine, container.id, live), f"watch {container.id[:12]}")
    etc_files.relink(engine, container)
    log_shipping.start_shipping(engine, container)
    engine.events.container(container, "start")
    return container


def _make_run_dir(path: Path, undo: contextlib.AsyncExitStack) -> None:
    """Where its monitor will live, without what an earlier one left."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    (path / "rootfs").mkdir(mode=0o700)
    undo.callback(shutil.rmtree, path, ignore_errors=True)


async def _attach(engine: Engine, container: Container, undo: contextlib.AsyncExitStack) -> Endpoint | None:
    """Its network; None where it shares another container's."""
    if network_kind(container.host.network_mode) == "container":
        return None
    links.check_startable(engine, container)
    wanted = network_link.endpoint_requests(container, engine.settings.dns)
    ids = user_namespaces.id_maps(container.ids)
    try:
        endpoint = await engine.network.attach(container.id, *wanted, id_maps=ids)
    except (NotFound, InvalidArgument, Forbidden, Conflict, ResourceExhausted) as error:  # Docker's words since 28
        raise type(error)(f"failed to set up container networking: {error}") from error
    undo.push_async_callback(engine.network.release, container.id)
    return endpoint


def _store_running(
    engine: Engine, container_id: str, started: messages.Started, endpoint: Endpoint | None
) -> Container:
    container = engine.containers.find(container_id)  # as it is now: it may have got another name meanwhile
    if endpoint is not None:
        container = _with_endpoint(container, endpoint)
    return engine.containers.save_state(
        container_id,
        base=container,
        status="running",
        pid=started.pid,
        started_ns=started.started_ns,
        finished_ns=0 if not container.state.restart_count else container.state.finished_ns,
        exit_code=0,
        error="",
        oom_killed=False,
        stopped_by_user=False,
        ended_by="",
        memory_peak_bytes=0,
        health=health_rules.at_start(container),
    )


def _with_endpoint(container: Container, endpoint: Endpoint) -> Container:
    return network_link.with_records(container, endpoint.records)


async def _wait_started(engine: Engine, container: Container, link: MonitorLink) -> messages.Started:
    try:
        return await link.wait_started()
    except StartFailed as error:
        text = failure_text(error, "failed to create task for container: OCI runtime create failed")
        engine.containers.save_state(container.id, exit_code=error.exit_code, error=text)
        raise InvalidArgument(text) from error


def failure_text(error: StartFailed, context: str) -> str:
    """Why a process could not be started, as Docker says it: what is wrong with the user it says without context."""
    text = str(error)
    if ": not a directory" in text and "error mounting" in text:
        text += ": Are you trying to mount a directory onto a file (or vice-versa)? "
        text += "Check if the specified host path exists and is the expected type"
    return text if text.startswith("unable to find ") else f"{context}: {text}: unknown"


def _launch_monitor(engine: Engine, container: Container, endpoint: Endpoint | None) -> MonitorLink:
    security = parse_security(container.host, no_new_privileges=engine.settings.no_new_privileges)
    security = disk_limit.confined(engine, container, security)
    cgroup = engine.cgroup_path(container.id, container.host.cgroup_parent)
    told = links.with_environment(engine, container)
    spec = build_spec(engine.settings, told, surroundings(engine, container, cgroup), security)
    engine.snapshots.settle(container.id)
    root = engine.snapshots.root_filesystem(container.id)
    if container.host.auto_remove and isinstance(root, OverlayRoot):
        root = msgspec.structs.replace(root, volatile=True)
    config = container.config
    if security.seccomp is not None:
        compile_filter(security.seccomp, str(engine.settings.data_root / "seccomp"))  # remembered; the plan asks for it
    plan = build_plan(
        spec,
        container_id=container.id,
        rootfs=root,
        hierarchies=known_hierarchies(),
        user=config.user,
        group_add=container.host.group_add or (),
        init=engine.settings.init_by_default if container.host.init is None else container.host.init,
        map_owners=container.ids is not None,
    )
    log = log_settings(container)
    streams = engine.pending_streams.pop(container.id, [])
    request = messages.StartRequest(
        name=container.name,
        directory=str(engine.run_dir(container.id)),
        plan=encode_plan(plan),
        terminal=config.tty,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        cgroup=cgroup,
        log_path=log.path,
        log_max_bytes=log.max_bytes,
        log_max_files=log.max_files,
        log_attributes=msgspec.json.encode(log.attributes) if log.attributes else b"",
        log_compress=log.compress,
        log_counted=log.shipped,
        has_netns=endpoint is not None and endpoint.namespace_fd is not None,
        attached=tuple(wish for wish, _ in streams),
    )
    try:
        netns_fd = endpoint.namespace_fd if endpoint is not None else None
        return engine.launcher.launch(request, netns_fd=netns_fd, streams=[stream for _, stream in streams])
    finally:
        for _, stream in streams:
            stream.close()


def surroundings(engine: Engine, container: Container, cgroup: str) -> Surroundings:
    """What of this machine and of other containers the container's spec needs."""
    joined: dict[str, str] = {}
    shm_pid = 0
    for kind, mode in (
        ("pid", container.host.pid_mode),
        ("ipc", container.host.ipc_mode),
        ("network", container.host.network_mode),
    ):
        if mode.startswith("container:"):
            pid = _running_pid(engine, mode.partition(":")[2])
            name = "net" if kind == "network" else kind
            joined[kind] = f"/proc/{pid}/ns/{name}"
            if kind == "network" and container.ids is not None:
                # Who joins a network joins the user namespace that owns it, or has no rights there.
                joined["user"] = _same_user_namespace(engine, container, mode.partition(":")[2])
            if kind == "ipc":
                shm_pid = _shareable_pid(engine, mode.partition(":")[2])
    return Surroundings(
        cgroup_path=cgroup,
        root_path=str(engine.run_dir(container.id) / "rootfs"),
        joined=joined,
        thermal_paths=_thermal_paths(),
        time_namespace=os.path.exists("/proc/self/ns/time"),
        shm_pid=shm_pid,
        layers=image_mounts.layers(engine, container.id, container.mounts),
        cgroup_private=container.host.cgroupns_mode != "host",
    )


def _running_pid(engine: Engine, ref: str) -> int:
    other = engine.containers.find(ref)
    if not other.state.running or not other.state.pid:
        raise Conflict(f"cannot join the namespace of a non running container: {other.id}")
    return other.state.pid


def _same_user_namespace(engine: Engine, container: Container, ref: str) -> str:
    other = engine.containers.find(ref)
    if other.ids != container.ids:
        raise Conflict(f"cannot join network of container {other.id}: it has another user namespace")
    return f"/proc/{other.state.pid}/ns/user"


def _shareable_pid(engine: Engine, ref: str) -> int:
    other = engine.containers.find(ref)
    if other.host.ipc_mode not in ("shareable", "host"):
        raise Conflict(
            f"failed to join IPC namespace: container {other.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    if other.ids is not None:
        raise Conflict(f"failed to join IPC namespace: container {other.id}: it has a user namespace of its own")
    return other.state.pid


@functools.cache
def _thermal_paths() -> tuple[str, ...]:
    """What shows a CPU's throttling to all (GHSA-6fw5-f8r9-fgfm)."""
    return tuple(sorted(str(path) for path in Path(THERMAL).glob("cpu*/thermal_throttle")))
