"""pause and unpause, by the freezer."""

from __future__ import annotations

from tare.engine.engine import Engine, in_thread
from tare.errors import Conflict, Internal
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
