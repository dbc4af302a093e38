"""Health checks at work: runs the probe in the container again and again; `health_rules` says what it means."""

from __future__ import annotations

import asyncio
import signal

from tare.engine import execs, kill, restart, stop
from tare.engine import health_rules as rules
from tare.engine.engine import Engine, Live
from tare.engine.options import ExecOptions, HealthcheckOptions
from tare.engine.records import Container, HealthProbe
from tare.engine.streams import AttachSession
from tare.errors import TareError
from tare.values.timestamps import now_ns

MAX_OUTPUT_BYTES = 4096
_FRAME_HEADER = 8


async def watch(engine: Engine, container_id: str, live: Live) -> None:
    """Probes a running container until it ends."""
    container = engine.containers.find(container_id)
    options = container.config.healthcheck
    if not rules.command(container) or options is None:
        return
    while not await _ended_within(live, rules.delay_ns(container, options, now_ns())):
        container = engine.containers.find(container_id)
        if container.state.paused:
            continue
        probe = await _probe(engine, container, options)
        if live.handled.is_set():
            return
        await _take_in(engine, container_id, options, probe)
        container = engine.containers.find(container_id)


async def _ended_within(live: Live, delay_ns: int) -> bool:
    return await stop.wait_handled(live, delay_ns / 1e9)


async def _probe(engine: Engine, container: Container, options: HealthcheckOptions) -> HealthProbe:
    start_ns = now_ns()
    timeout_s = (options.timeout or rules.DEFAULT_TIMEOUT_NS) / 1e9
    wanted = ExecOptions(attach_stdout=True, attach_stderr=True, cmd=rules.command(container))
    try:
        exec_id = await execs.create_exec(engine, container.id, wanted)
        session = await execs.start_exec(engine, exec_id, detach=False, tty=False, console_size=None)
    except TareError as error:
        return HealthProbe(start_ns=start_ns, end_ns=now_ns(), exit_code=-1, output=str(error))
    assert session is not None
    live = engine.execs[exec_id]
    output = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            await _read_output(session, output)
            await live.ended.wait()
        code, text = live.record.exit_code or 0, output.decode("utf-8", "replace")
    except TimeoutError:
        if live.link is not None:
            live.link.send_signal(signal.SIGKILL)
        code, text = -1, f"Health check exceeded timeout ({_seconds(timeout_s)})"
    finally:
        await session.close()
        engine.execs.pop(exec_id, None)
    return HealthProbe(start_ns=start_ns, end_ns=now_ns(), exit_code=code, output=text)


def _seconds(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


async def _read_output(session: AttachSession, output: bytearray) -> None:
    """Keeps the first bytes of both streams, without their frames."""
    pending = bytearray()
    while chunk := await session.read():
        pending += chunk
        while len(pending) >= _FRAME_HEADER:
            size = int.from_bytes(pending[4:8], "big")
            if len(pending) < _FRAME_HEADER + size:
                break
            output += pending[_FRAME_HEADER : _FRAME_HEADER + size][: MAX_OUTPUT_BYTES - len(output)]
            del pending[: _FRAME_HEADER + size]


async def _take_in(engine: Engine, container_id: str, options: HealthcheckOptions, probe: HealthProbe) -> None:
    """Draws the conclusions of one probe."""
    container = engine.containers.get(container_id)
    if container is None or not container.state.running:
        return
    before = container.state.health.status if container.state.health else "starting"
    health = rules.after(container, options, probe)
    container = engine.containers.save_state(container_id, health=health)
    if health.status != before:
        engine.events.container(container, f"health_status: {health.status}")
        if health.status == "unhealthy":
            await _act(engine, container)


async def _act(engine: Engine, container: Container) -> None:
    """What the user wants done about an unhealthy container; beside this task, since that ends with the container."""
    action = container.host.health_on_failure
    if action == "restart":
        work = restart.restart_container(engine, container.id, signal=None, timeout_s=None)
    elif action == "stop":
        work = stop.stop_container(engine, container.id, signal=None, timeout_s=None)
    elif action == "kill":
        work = kill.kill_container(engine, container.id, signal="")
    else:
        return
    engine.spawn(work, f"{action} unhealthy {container.id[:12]}")
