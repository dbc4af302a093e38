"""pause and unpause, by the freezer; and the short standstill of a container that nobody is told of."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tare.engine.engine import Engine, in_thread
from tare.engine.records import Container
from tare.errors import Conflict, Internal, KernelError
from tare.runtime.cgroups import open_cgroup


async def pause_container(engine: Engine, ref: str) -> None:
    """Freezes all processes of a container. Raises NotFound, Conflict with Docker's texts."""
    container = engine.containers.find(ref)
    async with engine.lock(container.id):
        container = engine.containers.find(container.id)
        status = container.state.status
        if status == "paused":
            raise Conflict(f"Container {container.id} is already paused")
        if status == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if status != "running":
            raise Conflict(f"container {container.id} is not running")
        await in_thread(open_cgroup(engine.cgroup_path(container.id, container.host.cgroup_parent)).freeze)
        container = engine.containers.save_state(container.id, status="paused")
        engine.events.container(container, "pause")


async def unpause_container(engine: Engine, ref: str) -> None:
    """Thaws a container. Raises NotFound, Internal with Docker's text."""
    container = engine.containers.find(ref)
    async with engine.lock(container.id):
        container = engine.containers.find(container.id)
        if not container.state.paused:
            raise Internal(f"Container {container.id} is not paused")  # 500, as Docker's API file says
        if container.leaving:
            raise Conflict(f'container "{container.name}" is being moved; tare move --abort gives that up')
        await in_thread(open_cgroup(engine.cgroup_path(container.id, container.host.cgroup_parent)).thaw)
        container = engine.containers.save_state(container.id, status="running")
        engine.events.container(container, "unpause")


def freeze_quietly(engine: Engine, container: Container) -> bool:
    """Freezes a running container; no state changes, since nobody should see it paused afterwards."""
    if engine.live.get(container.id) is None or container.state.paused:
        return False
    try:
        open_cgroup(engine.cgroup_path(container.id, container.host.cgroup_parent)).freeze()
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return False  # it has just ended: its cgroup is gone before its end is stored
    return True


def thaw_quietly(engine: Engine, container: Container) -> None:
    """Undoes `freeze_quietly`."""
    try:
        open_cgroup(engine.cgroup_path(container.id, container.host.cgroup_parent)).thaw()
    except KernelError:
        if engine.live.get(container.id) is not None:
            raise


@asynccontextmanager
async def frozen(engine: Engine, container_id: str) -> AsyncIterator[None]:
    """A container that runs stands still in the block. The caller holds its lock."""
    container = engine.containers.find(container_id)
    stands = await in_thread(freeze_quietly, engine, container)
    try:
        yield
    finally:
        if stands:
            await in_thread(thaw_quietly, engine, container)
