"""What happens when a container's process ends: state stored, network released, waiters woken, restart or removal."""

from __future__ import annotations

import asyncio
import functools
import signal

from tare import faults
from tare.engine import container_volumes, health, health_rules, network_link, remove, restart_policy, unfinished, wait
from tare.engine.cgroup_end import clear_cgroup
from tare.engine.engine import Engine, Live
from tare.engine.records import Container, WaitResult
from tare.engine.sweep import discard_directory
from tare.errors import TareError
from tare.runtime.messages import Exited
from tare.runtime.monitor_client import read_exit
from tare.storage.database import making_room
from tare.values.timestamps import now_ns

KILLED = 137


async def watch(engine: Engine, container_id: str, live: Live) -> None:
    """Waits for a running container's end and deals with it."""
    probing = engine.spawn(health.watch(engine, container_id, live), f"health of {container_id[:12]}")
    exited = await live.link.wait_ended()
    probing.cancel()
    if engine.shutting_down and exited is None:
        return
    if exited is None:
        exited = read_exit(str(engine.run_dir(container_id))) or await _end_orphan(engine, container_id, live)
    try:
        await handle_exit(engine, container_id, exited)
    finally:
        live.link.close()
        live.link.close_pidfd()
        live.handled.set()


class _End:
    """A process's end, while conclusions are drawn from it. told: its events have been published."""

    def __init__(self, exited: Exited) -> None:
        self.exited = exited
        self.told = False


async def handle_exit(engine: Engine, container_id: str, exited: Exited) -> None:
    """Stores a container's end and draws the conclusions; what fails is tried again beside until it succeeds."""
    end = _End(exited)
    try:
        await _handle_exit(engine, container_id, end)
    except Exception as error:
        _record_end(engine, container_id, exited)
        again = functools.partial(_handle_exit, engine, container_id, end)
        unfinished.finish_later(engine, container_id, f"end of {container_id[:12]}", again, error)


def _record_end(engine: Engine, container_id: str, exited: Exited) -> None:
    """Something about the end went wrong; that it ended is a fact all the same, on which every verb depends."""
    engine.live.pop(container_id, None)
    container = engine.containers.get(container_id)
    if container is None or not container.state.running:
        return
    engine.containers.note_state(
        container_id, status="exited", pid=0, exit_code=exited.exit_code, finished_ns=exited.finished_ns
    )
    wait.wake(engine, container_id, ("next-exit", "not-running"), WaitResult(exit_code=exited.exit_code))


async def _end_orphan(engine: Engine, container_id: str, live: Live) -> Exited:
    """Its monitor was killed, so nobody reads its output or will learn its exit code: the container ends, too."""
    if live.link.send_signal(signal.SIGKILL):
        await _wait_pidfd(live.link.pidfd)
    clear_cgroup(engine, container_id)
    return Exited(KILLED, False, now_ns())


async def _wait_pidfd(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(pidfd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(pidfd)


async def _handle_exit(engine: Engine, container_id: str, end: _End) -> None:
    """Safe to repeat after a failure or a crash at any point."""
    with making_room():  # on a full disk, too: what ended can then be removed
        await _handle_exit_now(engine, container_id, end)


async def _handle_exit_now(engine: Engine, container_id: str, end: _End) -> None:
    exited = end.exited
    container = engine.containers.get(container_id)
    if container is None:
        return
    faults.point("engine.exit.seen")
    await engine.network.release(container_id)
    container = engine.containers.find(container_id)  # as it is now: it may have got another name meanwhile
    faults.point("engine.exit.released")
    engine.live.pop(container_id, None)
    end_execs(engine, container_id)
    again = not engine.shutting_down and restart_policy.wanted(container, exited)
    before = container
    container = engine.containers.save_state(
        container_id,
        base=network_link.disconnected(container),
        status="restarting" if again else "exited",
        pid=0,
        exit_code=exited.exit_code,
        oom_killed=exited.oom_killed,
        memory_peak_bytes=exited.memory_peak_bytes,
        finished_ns=exited.finished_ns,
        health=health_rules.at_end(container),
    )
    _tell(engine, before, container, end)
    faults.point("engine.exit.stored")
    discard_directory(engine, engine.run_dir(container_id))
    container_volumes.release(engine, container)
    result = WaitResult(exit_code=exited.exit_code)
    wait.wake(engine, container_id, ("next-exit", "not-running"), result)
    if again:
        restart_policy.schedule(engine, container, exited)
        return
    if container.host.auto_remove:
        engine.spawn(_auto_remove(engine, container_id), f"remove {container_id[:12]}")


def _tell(engine: Engine, before: Container, container: Container, end: _End) -> None:
    if end.told:
        return
    end.told = True
    network_link.publish(engine.events, before, "disconnect")
    if end.exited.oom_killed:
        engine.events.container(container, "oom")
    duration = _duration(container)
    engine.events.container(container, "die", exitCode=str(end.exited.exit_code), execDuration=duration)


async def _auto_remove(engine: Engine, container_id: str) -> None:
    try:
        await remove.remove_stopped(engine, container_id)
    except TareError:
        if engine.containers.get(container_id) is not None:
            raise


def end_execs(engine: Engine, container_id: str) -> None:
    """The kernel has killed what was exec'd in the container's pid namespace; execs that never ran are forgotten.

    Those that ended can be asked for their exit code a while longer: a process that ends its container, as one that
    tells it to stop, would lose it otherwise.
    """
    for exec_id, live in list(engine.execs.items()):
        record = live.record
        if record.container_id == container_id and not record.running and record.exit_code is None:
            del engine.execs[exec_id]


def _duration(container: Container) -> str:
    state = container.state
    return str(max(0, state.finished_ns - state.started_ns) // 10**9)
