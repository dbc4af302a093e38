"""exec: a further process in a running container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket

import msgspec

from tare import faults
from tare.engine import links
from tare.engine.disk_limit import confined
from tare.engine.engine import Engine, LiveExec
from tare.engine.launch import failure_text
from tare.engine.oci_security import parse_security
from tare.engine.oci_spec import exec_process
from tare.engine.options import ExecOptions
from tare.engine.records import Container, ExecRecord
from tare.engine.resize import check_size
from tare.engine.streams import AttachSession, open_session, parse_detach_keys
from tare.errors import Conflict, InvalidArgument, NotFound
from tare.oci.runtime_spec import OCI_VERSION, Linux, Spec
from tare.runtime import messages
from tare.runtime.cgroups import known_hierarchies
from tare.runtime.create import StartFailed
from tare.runtime.messages import StreamWish
from tare.runtime.monitor_client import MonitorLink, connect_monitor, read_exit
from tare.runtime.plan import build_exec_plan, encode_plan
from tare.values.ids import new_id

RESIZE_PATIENCE_S = 10.0
RECORD_NAME = "exec.json"
EXIT_CANNOT_RUN = 126
FAILED = "OCI runtime exec failed: exec failed"
KEPT_S = 300.0
"""How long the exit code of a process can be asked for once it has ended."""


async def create_exec(engine: Engine, ref: str, options: ExecOptions) -> str:
    """Registers a process to be started in a container; returns its id.

    Raises NotFound, Conflict (not running, paused), InvalidArgument (no command), with Docker's texts.
    """
    container = _running(engine, ref)
    if not options.cmd:
        raise InvalidArgument("No exec command specified")
    if options.detach_keys:
        parse_detach_keys(options.detach_keys)
    record = ExecRecord(
        id=new_id(),
        container_id=container.id,
        options=options,
        entrypoint=options.cmd[0],
        arguments=options.cmd[1:],
    )
    engine.execs[record.id] = LiveExec(record)
    engine.events.container(container, f"exec_create: {' '.join(options.cmd)}", execID=record.id)
    return record.id


def _running(engine: Engine, ref: str) -> Container:
    container = engine.containers.find(ref)
    status = container.state.status
    if status == "paused":
        raise Conflict(f"Container {ref} is paused, unpause the container before exec")
    if status == "restarting":
        raise Conflict(f"Container {ref} is restarting, wait until the container is running")
    if status != "running":
        raise Conflict(f"container {container.id} is not running")
    return container


def _find(engine: Engine, exec_id: str) -> LiveExec:
    live = engine.execs.get(exec_id)
    if live is None:
        raise NotFound(f"No such exec instance: {exec_id}")
    return live


def check_exec_startable(engine: Engine, exec_id: str) -> ExecRecord:
    """The process, if it can be started now. Raises NotFound, Conflict (started already, container stopped or paused),
    with Docker's texts."""
    record = _find(engine, exec_id).record
    if record.running or record.exit_code is not None:
        raise Conflict(
            f"exec command {exec_id} is already running"
            if record.running
            else f"exec command {exec_id} has already run"
        )
    _running(engine, record.container_id)
    return record


async def start_exec(
    engine: Engine, exec_id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None
) -> AttachSession | None:
    """Starts the process; returns its streams, or None if detach.

    Raises NotFound, Conflict (started already, container stopped or paused), InvalidArgument (the command can't be
    run), with Docker's texts.
    """
    check_exec_startable(engine, exec_id)
    live = _find(engine, exec_id)
    record = live.record
    container = _running(engine, record.container_id)
    options = record.options
    if console_size and any(console_size):
        options = msgspec.structs.replace(options, console_size=console_size)
    session = None
    streams: list[tuple[StreamWish, socket.socket]] = []
    if not detach:
        session, theirs = await open_session(tty=options.tty, detach_keys=options.detach_keys)
        streams.append((StreamWish(options.attach_stdin, options.attach_stdout, options.attach_stderr), theirs))
    live.record = msgspec.structs.replace(record, running=True)
    engine.events.container(container, f"exec_start: {' '.join(options.cmd or ())}", execID=exec_id)
    try:
        launching = _launch(engine, container, live, options, streams)
        await engine.uninterrupted(launching, f"exec {exec_id[:12]}")
    except BaseException as error:
        # A caller that is cancelled leaves the launch to go on.
        if isinstance(error, Exception) and live.link is None and live.record.exit_code is None:
            _note_failure(engine, live, EXIT_CANNOT_RUN)
        if session is not None:
            await session.close()
        raise
    finally:
        for _, stream in streams:
            stream.close()
    return session


async def _launch(
    engine: Engine,
    container: Container,
    live: LiveExec,
    options: ExecOptions,
    streams: list[tuple[StreamWish, socket.socket]],
) -> None:
    directory = engine.run_dir(container.id) / "execs" / live.record.id
    directory.mkdir(mode=0o700, parents=True)
    security = parse_security(container.host, no_new_privileges=engine.settings.no_new_privileges)
    security = confined(engine, container, security)
    if options.privileged:
        security = msgspec.structs.replace(security, seccomp=None)
    cgroup = engine.cgroup_path(container.id, container.host.cgroup_parent)
    spec = Spec(oci_version=OCI_VERSION, linux=Linux(cgroups_path=cgroup, seccomp=security.seccomp))
    try:
        plan = build_exec_plan(
            exec_process(engine.settings, links.with_environment(engine, container), options, security),
            container_pid=container.state.pid,
            start_ticks=engine.live[container.id].link.started.result().start_ticks,
            spec=spec,
            hierarchies=known_hierarchies(),
            user=options.user or container.config.user,
            group_add=container.host.group_add or (),
        )
    except InvalidArgument as error:
        raise InvalidArgument(f"{FAILED}: {error}: unknown") from error
    request = messages.StartRequest(
        name=f"exec {live.record.id[:12]} in {container.name}",
        directory=str(directory),
        plan=encode_plan(plan),
        is_exec=True,
        terminal=options.tty,
        open_stdin=options.attach_stdin,
        stdin_once=True,
        attached=tuple(wish for wish, _ in streams),
    )
    link = engine.launcher.launch(request, streams=[stream for _, stream in streams])
    try:
        faults.point("engine.exec.launched")
        started = await link.wait_started()
    except StartFailed as error:
        link.close()
        # What the engine itself exits with is for containers alone, as in Docker.
        _note_failure(engine, live, max(error.exit_code, EXIT_CANNOT_RUN))
        raise InvalidArgument(failure_text(error, FAILED)) from error
    live.record = msgspec.structs.replace(live.record, pid=started.pid)
    _remember(str(directory), live.record)
    live.link = link
    live.launched.set()
    engine.spawn(_watch(engine, live, link, str(directory)), f"exec {live.record.id[:12]}")


def _note_failure(engine: Engine, live: LiveExec, exit_code: int) -> None:
    """The process never ran: nothing of it stays but the code that its client exits with."""
    record = live.record
    shutil.rmtree(engine.run_dir(record.container_id) / "execs" / record.id, ignore_errors=True)
    live.record = msgspec.structs.replace(record, running=False, exit_code=exit_code)
    live.launched.set()
    live.ended.set()
    forget_later(engine, live)


async def _watch(engine: Engine, live: LiveExec, link: MonitorLink, directory: str) -> None:
    exited = await link.wait_ended() or read_exit(directory)
    if engine.shutting_down and exited is None:
        return
    code = exited.exit_code if exited is not None else 137
    live.record = msgspec.structs.replace(live.record, running=False, exit_code=code, pid=0, can_remove=True)
    live.link = None
    live.ended.set()
    forget_later(engine, live)
    link.close()
    link.close_pidfd()
    shutil.rmtree(directory, ignore_errors=True)
    container = engine.containers.get(live.record.container_id)
    if container is not None:
        engine.events.container(container, "exec_die", execID=live.record.id, exitCode=str(code))


def forget_later(engine: Engine, live: LiveExec, kept_s: float = KEPT_S) -> None:
    """Forgets a process that has ended kept_s from now, so that whoever waited for its exit code can still ask."""
    asyncio.get_running_loop().call_later(kept_s, engine.execs.pop, live.record.id, None)


def _remember(directory: str, record: ExecRecord) -> None:
    """An engine that starts anew finds its execs by this file."""
    aside = f"{directory}/.{RECORD_NAME}"
    with open(aside, "wb") as file:
        file.write(msgspec.json.encode(record))
    os.rename(aside, f"{directory}/{RECORD_NAME}")


async def restore_execs(engine: Engine, container_id: str) -> None:
    """Finds the processes that an earlier engine started in a container that still runs."""
    directory = engine.run_dir(container_id) / "execs"
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        try:
            record = msgspec.json.decode((path / RECORD_NAME).read_bytes(), type=ExecRecord)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            shutil.rmtree(path, ignore_errors=True)
            continue
        live = engine.execs[record.id] = LiveExec(record)
        link = connect_monitor(str(path))
        if link is not None:
            live.link = link
            engine.spawn(_watch(engine, live, link, str(path)), f"exec {record.id[:12]}")
            continue
        exited = read_exit(str(path))
        code = exited.exit_code if exited is not None else 137
        live.record = msgspec.structs.replace(record, running=False, exit_code=code, pid=0, can_remove=True)
        live.ended.set()
        forget_later(engine, live)
        shutil.rmtree(path, ignore_errors=True)


async def resize_exec(engine: Engine, exec_id: str, *, height: int, width: int) -> None:
    """Sets the size of the process's terminal. Raises NotFound, Conflict if it isn't running.

    A client may ask as soon as its start request is answered, before the process runs: then it waits, as in Docker.
    """
    check_size(height, width)
    live = _find(engine, exec_id)
    if live.link is None and live.record.exit_code is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(live.launched.wait(), RESIZE_PATIENCE_S)
    if live.link is None:
        raise Conflict(f"exec process {exec_id} is not running")
    try:
        live.link.resize(height, width)
    except OSError as error:
        raise Conflict(f"exec process {exec_id} is not running") from error


async def inspect_exec(engine: Engine, exec_id: str) -> ExecRecord:
    """What is known of the process. Raises NotFound with Docker's text."""
    return _find(engine, exec_id).record
