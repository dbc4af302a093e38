"""restore: at start, makes what is stored agree with what the kernel has. An ordinary code path: every start takes it.

For each stored container: a monitor that answers means that it runs; a monitor's exit file tells how it ended; with
neither it ended with the machine. What belongs to no stored container is taken away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal

from tare import faults
from tare.engine import (
    arrival,
    container_volumes,
    execs,
    exits,
    image_mounts,
    log_shipping,
    mount_change,
    network_restore,
    remove,
    restart_policy,
    trash,
)
from tare.engine.cgroup_end import clear_cgroup
from tare.engine.engine import Engine, Live, in_thread
from tare.engine.records import Container
from tare.engine.slim import slim_soon
from tare.engine.sweep import empty_trash_soon
from tare.errors import TareError
from tare.images import receiving
from tare.runtime.cgroups import open_cgroup
from tare.runtime.create import StartFailed
from tare.runtime.messages import Exited
from tare.runtime.monitor_client import MonitorLink, connect_monitor, process_lives, read_exit
from tare.values.timestamps import now_ns

LOST = 255
"""The exit code of a container whose end nobody saw, as dockerd gives it."""
ANSWER_S = 5.0

log = logging.getLogger("tare.restore")


async def restore(engine: Engine) -> None:
    """Takes up what an earlier engine on this data root left. Safe to be killed at any point and repeated."""
    _remove_strangers(engine)
    await in_thread(_repair_storage, engine)
    faults.point("engine.restore.storage")
    ended: list[tuple[Container, Exited]] = []
    for container in engine.containers:
        if container.state.status == "removing":
            continue
        link = await _answering_monitor(engine, container)
        if link is not None:
            await _adopt(engine, container, link)
        elif container.state.running:
            ended.append((container, _how_it_ended(engine, container)))
        else:
            shutil.rmtree(engine.run_dir(container.id), ignore_errors=True)
    await engine.network.restore(set(engine.live))
    for container_id, live in list(engine.live.items()):
        await network_restore.take_up(engine, container_id, live)
    faults.point("engine.restore.network")
    for container, exited in ended:
        clear_cgroup(engine, container.id)
        await exits.handle_exit(engine, container.id, exited)
    for container in engine.containers:
        await mount_change.take_up(engine, container.id)
    faults.point("engine.restore.mounts")
    container_volumes.unmount_forgotten(engine)
    for container in engine.containers:
        log_shipping.start_shipping(engine, container)
    for container in engine.containers:
        if container.id not in engine.live:
            await _settle_stopped(engine, container)
    await trash.settle_all(engine)
    arrival.forget_old(engine)
    empty_trash_soon(engine)  # an earlier engine may have died before it packed what was committed
    slim_soon(engine)  # or before it looked how compressed layers are made


async def _settle_stopped(engine: Engine, container: Container) -> None:
    """A container that doesn't run: finish its removal, or start it again if its policy says so."""
    status = container.state.status
    waits = container.id in engine.restart_tasks
    if status == "removing" or (container.host.auto_remove and status in ("exited", "dead")):
        async with engine.lock(container.id):
            if engine.containers.get(container.id) is not None:
                with contextlib.suppress(Exception):  # it is told in the log, and tried again
                    await remove.discard(engine, container, keep=True)
        return
    policy = container.host.restart_policy.name if container.host.restart_policy else ""
    wants = policy == "always" or (policy == "unless-stopped" and not container.state.stopped_by_user)
    if wants and not container.leaving and status in ("exited", "restarting") and not waits:
        engine.containers.save_state(container.id, status="restarting")
        restart_policy.schedule(engine, container, Exited(container.state.exit_code, False, now_ns()))


async def _answering_monitor(engine: Engine, container: Container) -> MonitorLink | None:
    """A link to the container's monitor, if that is there and its process was started."""
    link = connect_monitor(str(engine.run_dir(container.id)))
    if link is None:
        return None
    try:
        await asyncio.wait_for(link.wait_started(), ANSWER_S)
    except (StartFailed, TimeoutError):
        link.close()
        return None
    return link


async def _adopt(engine: Engine, container: Container, link: MonitorLink) -> None:
    started = await link.wait_started()
    cgroup = open_cgroup(engine.cgroup_path(container.id, container.host.cgroup_parent))
    status = "running"
    try:
        if cgroup.frozen():
            if container.state.status == "paused":
                status = "paused"
            else:
                cgroup.thaw()  # by a commit that was cut short, or a pause that nobody was told of
    except (OSError, TareError) as error:
        log.warning("container %s: can't tell whether it is paused: %s", container.id[:12], error)
    engine.containers.save_state(container.id, status=status, pid=started.pid, started_ns=started.started_ns)
    engine.live[container.id] = live = Live(link, started.pid)
    engine.spawn(engine.watch(engine, container.id, live), f"watch {container.id[:12]}")
    await execs.restore_execs(engine, container.id)
    log.info("container %s runs on (pid %d)", container.id[:12], started.pid)


def _how_it_ended(engine: Engine, container: Container) -> Exited:
    run_dir = str(engine.run_dir(container.id))
    exited = read_exit(run_dir)
    if exited is not None:
        return exited
    pid = process_lives(run_dir)
    if pid:  # its monitor was killed: see exits.watch
        os.kill(pid, signal.SIGKILL)
        return Exited(exits.KILLED, False, now_ns())
    return Exited(LOST, False, now_ns())


def _remove_strangers(engine: Engine) -> None:
    """Directories and cgroups of no stored container: a create or remove was cut short."""
    kept = engine.settings.data_root / "containers"
    for parent in (engine.settings.exec_root / "containers", kept):
        for path in parent.iterdir():
            if engine.containers.get(path.name) is None and not (parent == kept and engine.trash.holds(path.name)):
                pid = process_lives(str(path))
                if pid:
                    os.kill(pid, signal.SIGKILL)
                clear_cgroup(engine, path.name)
                shutil.rmtree(path, ignore_errors=True)


def _repair_storage(engine: Engine) -> None:
    arrival.remove_strangers(engine)
    receiving.forget_old(engine.images)
    engine.layers.repair()
    engine.volumes.repair(
        lambda container_id: engine.containers.get(container_id) is not None,
        container_volumes.volumes_in_use(engine),
        waiting=engine.trash.volumes(),
        discard=lambda name, container_id: container_volumes.discard_left(engine, name, container_id),
    )
    for snapshot_id in engine.snapshots.ids():
        if not image_mounts.is_owned(engine, snapshot_id):
            engine.snapshots.remove(snapshot_id)
    engine.snapshots.repair()
    engine.layers.collect()
    engine.snapshots.empty_trash()
    engine.layers.empty_trash()
    engine.volumes.empty_trash()
