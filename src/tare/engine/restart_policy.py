"""Restart policies: when a container that ended is started again, and after how long."""

from __future__ import annotations

import asyncio

from tare.engine import depends, launch
from tare.engine.engine import Engine
from tare.engine.records import Container
from tare.errors import TareError
from tare.runtime.messages import Exited

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
STEADY_NS = 10 * 10**9
"""A container that ran for so long starts again after the first delay (Docker's restart manager)."""


def wanted(container: Container, exited: Exited) -> bool:
    """Whether the container's policy has it started again after this end."""
    policy = container.host.restart_policy
    if policy is None or container.state.stopped_by_user:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name != "on-failure" or exited.exit_code == 0:
        return False
    return not policy.maximum_retry_count or container.state.restart_count < policy.maximum_retry_count


def schedule(engine: Engine, container: Container, exited: Exited) -> None:
    """Starts the container again after a while that doubles with every early end."""
    task = engine.spawn(_restart_later(engine, container, exited), f"restart {container.id[:12]}")
    engine.restart_tasks[container.id] = task
    task.add_done_callback(lambda done: _forget(engine, container.id, done))


def _forget(engine: Engine, container_id: str, task: asyncio.Task[None]) -> None:
    if engine.restart_tasks.get(container_id) is task:
        del engine.restart_tasks[container_id]


async def _restart_later(engine: Engine, container: Container, exited: Exited) -> None:
    ran_ns = exited.finished_ns - container.state.started_ns
    count = 0 if ran_ns >= STEADY_NS else container.state.restart_count
    await asyncio.sleep(_delay_s(count))
    while not await _dependencies_met(engine, container.id):
        count += 1
        await asyncio.sleep(_delay_s(count))
    async with engine.lock(container.id):
        current = engine.containers.get(container.id)
        if current is None or current.state.status != "restarting":
            return
        engine.containers.save_state(container.id, restart_count=current.state.restart_count + 1)
        try:
            await launch.launch(engine, engine.containers.find(container.id))
        except TareError as error:
            engine.containers.save_state(container.id, status="exited", error=str(error))
            raise


def _delay_s(count: int) -> float:
    return min(FIRST_DELAY_S * 2.0 ** min(count, 16), LONGEST_DELAY_S)


async def _dependencies_met(engine: Engine, container_id: str) -> bool:
    """Waits for what the container depends on; False, with the reason in its state, if that failed this time."""
    from tare.engine.start import start_container  # at the module's level it would be a circle

    container = engine.containers.get(container_id)
    if container is None:
        return True
    try:
        await depends.wait_dependencies(engine, container, start_container)
    except TareError as error:
        if engine.containers.get(container_id) is not None:
            engine.containers.save_state(container_id, error=str(error))
        return False
    return True


def cancel(engine: Engine, container_id: str) -> None:
    """A container that waits for its restart isn't started any more."""
    task = engine.restart_tasks.pop(container_id, None)
    if task is not None:
        task.cancel()
