"""stop: ask politely, wait, insist."""

from __future__ import annotations

import asyncio
import signal as signals

from tare.engine import kill, restart_policy
from tare.engine.engine import Engine, Live
from tare.engine.records import Container
from tare.errors import NotModified
from tare.values.signals import parse_signal, signal_name

KILL_WAIT_S = 10.0


async def stop_container(engine: Engine, ref: str, *, signal: str | None, timeout_s: int | None) -> None:
    """Stops a container; returns when it has ended.

    signal: instead of the container's own stop signal. timeout_s: how long to wait before SIGKILL; negative: for ever;
    None: the container's own, or the engine's. Raises NotFound, NotModified if it isn't running, InvalidArgument.
    """
    container = engine.containers.find(ref)
    if signal:
        parse_signal(signal)
    if not container.state.running:
        raise NotModified(f"container {container.id} is not running")
    stopping = stop_now(engine, container, signal=signal, timeout_s=timeout_s)
    await engine.uninterrupted(stopping, f"stop {container.id[:12]}")
    engine.events.container(engine.containers.get(container.id) or container, "stop")


async def stop_now(engine: Engine, container: Container, *, signal: str | None, timeout_s: int | None) -> None:
    """Stops a running container whatever locks are held."""
    number = parse_signal(signal) if signal else container.stop_signal
    engine.containers.note_state(container.id, stopped_by_user=True, ended_by=f"stop sent it {signal_name(number)}")
    if container.state.status == "restarting":
        restart_policy.cancel(engine, container.id)
        engine.containers.save_state(container.id, status="exited")
        return
    live = engine.live.get(container.id)
    if live is None:
        return
    if timeout_s is None:
        timeout_s = container.config.stop_timeout
    if timeout_s is None:
        timeout_s = engine.settings.default_stop_timeout_s
    kill.deliver(engine, container, live, number)
    if not await wait_handled(live, None if timeout_s < 0 else timeout_s):
        late = f"stop sent it {signal_name(number)}, and SIGKILL when it had not ended {timeout_s} s later"
        engine.containers.note_state(container.id, ended_by=late)
        kill.deliver(engine, container, live, signals.SIGKILL)
        await live.handled.wait()


async def wait_handled(live: Live, timeout_s: float | None) -> bool:
    """Waits for a container's end; False if it didn't come in time."""
    try:
        await asyncio.wait_for(live.handled.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
