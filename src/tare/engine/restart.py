"""restart: stop if it runs, then start; after those that it depends on."""

from __future__ import annotations

from tare.engine import depends, launch, restart_policy, stop, unfinished
from tare.engine.engine import Engine
from tare.engine.start import start_container
from tare.errors import Conflict


async def restart_container(engine: Engine, ref: str, *, signal: str | None, timeout_s: int | None) -> None:
    """Stops a container if it runs, and starts it. Raises as stop and start do.

    What it depends on is started and waited for first: if that fails, a running container runs on.
    """
    container = engine.containers.find(ref)
    await engine.uninterrupted(_restart(engine, container.id, signal, timeout_s), f"restart {container.id[:12]}")


async def _restart(engine: Engine, container_id: str, signal: str | None, timeout_s: int | None) -> None:
    await depends.wait_dependencies(engine, engine.containers.find(container_id), start_container)
    container = engine.containers.find(container_id)
    async with engine.lock(container.id):
        container = engine.containers.find(container.id)
        if container.state.status in ("removing", "dead"):
            raise Conflict(f"container {container.id} is marked for removal and cannot be restarted")
        if container.state.running:
            await stop.stop_now(engine, container, signal=signal, timeout_s=timeout_s)
            engine.events.container(engine.containers.get(container.id) or container, "stop")
        await unfinished.finish_now(engine, container.id)  # its end
        restart_policy.cancel(engine, container.id)
        container = await launch.launch(engine, engine.containers.find(container.id))
        engine.events.container(container, "restart")
