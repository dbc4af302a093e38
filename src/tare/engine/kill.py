"""kill: one signal to a container's first process."""

from __future__ import annotations

import signal as signals

from tare.engine import restart_policy
from tare.engine.engine import Engine, Live
from tare.engine.records import Container
from tare.errors import Conflict, Internal, InvalidArgument, KernelError, NotFound, system_text
from tare.runtime.cgroups import open_cgroup
from tare.values.signals import parse_signal, signal_name


async def kill_container(engine: Engine, ref: str, *, signal: str) -> None:
    """Sends a signal (SIGKILL if signal is ""); a SIGKILL is waited for, as Docker does.

    Raises NotFound, Conflict if it isn't running, InvalidArgument for an unknown signal, with Docker's texts.
    """
    try:
        number = parse_signal(signal) if signal else int(signals.SIGKILL)
        container = engine.containers.find(ref)
    except (InvalidArgument, NotFound) as error:
        raise type(error)(f"cannot kill container: {ref}: {error}") from error
    live = engine.live.get(container.id)
    if container.state.status == "restarting":
        engine.containers.save_state(container.id, stopped_by_user=True, status="exited")
        restart_policy.cancel(engine, container.id)
        return
    if live is None or not container.state.running:
        raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
    if number in (signals.SIGKILL, container.stop_signal):
        engine.containers.note_state(container.id, stopped_by_user=True)  # it may be what fills the disk
    engine.containers.note_state(container.id, ended_by=f"kill sent it {signal_name(number)}")
    deliver(engine, container, live, number)
    if number == signals.SIGKILL:
        await live.handled.wait()


def deliver(engine: Engine, container: Container, live: Live, number: int) -> None:
    """Sends a signal, and tells of it; a paused container that is meant to end is thawed, as it couldn't otherwise."""
    try:
        if not live.link.send_signal(number):
            return
    except OSError as error:
        raise Internal(f"cannot kill container {container.id}: {system_text(error.errno or 0)}") from error
    engine.events.container(container, "kill", signal=str(number))
    current = engine.containers.get(container.id)
    if current is not None and current.state.paused and number in (signals.SIGKILL, container.stop_signal):
        try:
            open_cgroup(engine.cgroup_path(container.id, container.host.cgroup_parent)).thaw()
        except KernelError:
            return  # it has just ended
        engine.containers.note_state(container.id, status="running")
