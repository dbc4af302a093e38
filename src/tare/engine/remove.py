"""remove: a container and all that is its own."""

from __future__ import annotations

import functools
import os
import signal

from tare import faults
from tare.engine import (
    container_volumes,
    image_mounts,
    kill,
    links,
    log_shipping,
    restart_policy,
    trash,
    trash_containers,
    unfinished,
    wait,
)
from tare.engine.cgroup_end import clear_cgroup
from tare.engine.engine import Engine, in_thread
from tare.engine.log_options import is_shipped
from tare.engine.records import Container, WaitResult
from tare.engine.sweep import discard_directory, empty_trash_soon
from tare.errors import Conflict, NotFound, ResourceExhausted
from tare.runtime.jsonlog import clear_files
from tare.storage.database import making_room


async def remove_container(
    engine: Engine, ref: str, *, force: bool, volumes: bool, link: bool, keep: bool = True
) -> None:
    """Removes a container; a running one only by force, which kills it.

    volumes: its anonymous volumes too, unless another container has them. keep: it waits in the trash for a while, if
    the engine has one. Raises NotFound, Conflict, with Docker's texts.
    """
    if link:
        links.remove_link(engine, ref)
        return
    container = engine.containers.find(ref)
    state = container.state
    if state.status == "removing" and engine.lock(container.id).locked():  # else an earlier removal failed
        raise Conflict(f"removal of container {container.id} is already in progress")
    if state.running:
        if not force:
            raise Conflict(_running_text(container, ref))
        await _kill(engine, container)
    await remove_stopped(engine, container.id, volumes=volumes, keep=keep)


def _running_text(container: Container, ref: str) -> str:
    state = container.state.status
    paused = state == "paused"
    hint = " and must be unpaused first" if paused else ": stop the container before removing or force remove"
    return f'cannot remove container "{ref}": container is {state}{hint}'


async def _kill(engine: Engine, container: Container) -> None:
    engine.containers.note_state(container.id, stopped_by_user=True)
    live = engine.live.get(container.id)
    if live is None:
        restart_policy.cancel(engine, container.id)
        return
    kill.deliver(engine, container, live, signal.SIGKILL)
    await live.handled.wait()


async def remove_stopped(engine: Engine, container_id: str, *, volumes: bool = False, keep: bool = False) -> None:
    """Removes a container that doesn't run; volumes: its anonymous volumes, too; keep: see `remove_container`.

    Raises NotFound if it is gone meanwhile, Conflict if it was started.
    """
    await engine.uninterrupted(_remove_stopped(engine, container_id, volumes, keep), f"remove {container_id[:12]}")


async def _remove_stopped(engine: Engine, container_id: str, volumes: bool, keep: bool) -> None:
    async with engine.lock(container_id):
        container = engine.containers.get(container_id)
        if container is None:
            raise NotFound(f"No such container: {container_id}")
        if container.state.running and container.state.status != "restarting":
            raise Conflict(_running_text(container, container_id))
        try:
            await _finish_and_discard(engine, container, volumes, keep)
        except ResourceExhausted:
            if not await _give_up_log(container):
                raise
            await _finish_and_discard(engine, container, volumes, keep)


async def _finish_and_discard(engine: Engine, container: Container, volumes: bool, keep: bool) -> None:
    if container.state.status != "removing":
        await unfinished.finish_now(engine, container.id)  # its end, or a removal that failed at once
    current = engine.containers.get(container.id)
    if current is not None:
        await discard(engine, current, volumes=volumes, keep=keep)


async def _give_up_log(container: Container) -> bool:
    """Makes room to write down that the container goes, where what it wrote took all; False if that gives none."""
    if not container.log_path or not os.path.exists(container.log_path) or not os.path.getsize(container.log_path):
        return False
    await in_thread(clear_files, container.log_path, counted=is_shipped(container))
    return True


async def discard(engine: Engine, container: Container, *, volumes: bool = False, keep: bool = False) -> None:
    """Takes away everything of a container; the caller holds its lock. Safe to repeat after a crash at any point.

    keep: its files stay, for the trash. If it fails it raises, and is tried again beside until it succeeds.
    """
    unfinished.forget(engine, container.id)
    try:
        with making_room():
            await _discard(engine, container, volumes, keep)
    except Exception as error:
        again = functools.partial(_discard_again, engine, container.id, volumes, keep)
        unfinished.finish_later(engine, container.id, f"remove {container.id[:12]}", again, error)
        raise


async def _discard_again(engine: Engine, container_id: str, volumes: bool, keep: bool) -> None:
    container = engine.containers.get(container_id)
    if container is not None:
        with making_room():
            await _discard(engine, container, volumes, keep)


async def _discard(engine: Engine, container: Container, volumes: bool, keep: bool) -> None:
    keep = keep and trash.is_kept(engine, container)
    restart_policy.cancel(engine, container.id)
    volumes = volumes or container.host.auto_remove or container.state.removes_volumes
    engine.containers.save_state(container.id, status="removing", removes_volumes=volumes)
    faults.point("engine.remove.marked")
    await engine.network.release(container.id)
    engine.drop_pending_streams(container.id)
    await log_shipping.stop_shipping(engine, container.id)
    clear_cgroup(engine, container.id)
    if not keep:
        engine.snapshots.remove(container.id)
        image_mounts.remove(engine, container.id, container.mounts)
    faults.point("engine.remove.snapshot")
    discard_directory(engine, engine.run_dir(container.id))
    if not keep:
        discard_directory(engine, engine.container_dir(container.id))
    faults.point("engine.remove.directory")
    leaving = container_volumes.mark_leaving(engine, container) if volumes else []
    if keep:
        trash.thrown(engine, trash_containers.throw(engine, container))
    else:
        engine.containers.remove(container.id)
    _remove_volumes(engine, container.id, leaving, keep)
    for exec_id in [exec_id for exec_id, live in engine.execs.items() if live.record.container_id == container.id]:
        del engine.execs[exec_id]
    empty_trash_soon(engine)
    engine.events.container(container, "destroy")
    result = WaitResult(exit_code=container.state.exit_code)
    wait.wake(engine, container.id, ("removed", "next-exit", "not-running"), result)


def _remove_volumes(engine: Engine, container_id: str, names: list[str], keep: bool) -> None:
    """The container is gone: what fails now isn't its removal, and is tried again beside."""
    try:
        faults.point("engine.remove.forgotten")
        container_volumes.remove_left(engine, container_id, names, keep=keep)
    except Exception as error:

        async def again() -> None:
            container_volumes.remove_left(engine, container_id, names, keep=keep)

        what = f"remove the volumes of {container_id[:12]}"
        unfinished.finish_later(engine, f"volumes of {container_id}", what, again, error)
