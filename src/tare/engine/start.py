"""start."""

from __future__ import annotations

from tare.engine import depends, launch, remove, restart_policy, unfinished
from tare.engine.engine import Engine
from tare.engine.records import Container
from tare.errors import Conflict, InvalidArgument, NotModified, TareError

FAILED_TO_START = 128
"""The exit code of a container that the engine couldn't start, as dockerd has it."""


async def start_container(engine: Engine, ref: str) -> None:
    """Starts a container, after those that it depends on.

    Raises NotFound, NotModified (it runs), Conflict (paused, or being removed), InvalidArgument (its command can't be
    run), with Docker's texts.
    """
    container = engine.containers.find(ref)
    await engine.uninterrupted(_start(engine, container.id), f"start {container.id[:12]}")


async def _start(engine: Engine, container_id: str) -> None:
    container = engine.containers.find(container_id)
    if not container.state.running:
        await _wait_dependencies(engine, container)
    async with engine.lock(container.id):
        container = engine.containers.find(container.id)
        status = container.state.status
        if status == "paused":
            raise Conflict("cannot start a paused container, try unpause instead")
        if status == "running":
            raise NotModified(f"container {container.id} is already running")
        if status in ("removing", "dead"):
            raise Conflict("container is marked for removal and cannot be started")
        await unfinished.finish_now(engine, container.id)  # its end
        restart_policy.cancel(engine, container.id)
        engine.containers.save_state(container.id, restart_count=0)
        try:
            await launch.launch(engine, engine.containers.find(container.id))
            return
        except Exception as error:
            await _give_up(engine, container_id, error)
            raise


async def _wait_dependencies(engine: Engine, container: Container) -> None:
    try:
        await depends.wait_dependencies(engine, container, start_container)
    except TareError as error:
        async with engine.lock(container.id):
            if engine.containers.get(container.id) is not None:
                await _give_up(engine, container.id, error)
        raise


async def _give_up(engine: Engine, container_id: str, error: Exception) -> None:
    """A container that couldn't be started says why; with --rm it goes."""
    if not isinstance(error, InvalidArgument):  # launch has told why the command can't be run
        engine.containers.save_state(container_id, error=str(error), exit_code=FAILED_TO_START)
    engine.drop_pending_streams(container_id)
    container = engine.containers.find(container_id)
    if container.host.auto_remove:
        await remove.discard(engine, container)
