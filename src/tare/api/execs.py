"""Further processes in a container: create, start, resize, inspect."""

from __future__ import annotations

from typing import Any

from tare.api import wire
from tare.api.call import Call, empty_response, json_response
from tare.api.container_bodies import ExecStartBody
from tare.api.lifecycle import window_size
from tare.api.messages import Response
from tare.api.raw_streams import frame_text, hijack, in_form, join, stream_type
from tare.api.router import Route
from tare.engine.execs import check_exec_startable, create_exec, inspect_exec, resize_exec, start_exec
from tare.engine.options import ExecOptions
from tare.engine.records import ExecRecord
from tare.errors import TareError


async def create(call: Call) -> Response:
    """POST /containers/{id}/exec."""
    options = await call.record(ExecOptions)
    return json_response({"Id": await create_exec(call.engine, call.path["id"], options)}, 201)


async def start(call: Call) -> Response | None:
    """POST /exec/{id}/start: hijacks the connection unless the process is to run detached.

    The request's Tty says whether the client reads frames; the process has a terminal if its creation said so.
    A command that can't be run is told in the stream, as Docker does: clients then ask for the exit code (126, 127).
    """
    body = wire.decode(ExecStartBody, await call.json())
    exec_id = call.path["id"]
    check_exec_startable(call.engine, exec_id)
    if body.detach:
        await start_exec(call.engine, exec_id, detach=True, tty=body.tty, console_size=body.console_size)
        return empty_response(200)
    duplex = hijack(call, stream_type(body.tty, call.version))
    try:
        session = await start_exec(call.engine, exec_id, detach=False, tty=body.tty, console_size=body.console_size)
    except TareError as error:
        await duplex.wait_head_read()
        await duplex.write(frame_text(str(error), body.tty))
        return None
    if session is not None:
        await join(duplex, in_form(session, raw=body.tty))
    return None


async def resize(call: Call) -> Response:
    """POST /exec/{id}/resize."""
    height, width = window_size(call)
    await resize_exec(call.engine, call.path["id"], height=height, width=width)
    return empty_response(200)


def exec_json(record: ExecRecord) -> dict[str, Any]:
    """GET /exec/{id}/json."""
    options = record.options
    process: dict[str, Any] = {
        "tty": options.tty,
        "entrypoint": record.entrypoint,
        "arguments": list(record.arguments),
        "privileged": options.privileged,
    }
    if options.user:
        process["user"] = options.user
    return {
        "ID": record.id,
        "Running": record.running,
        "ExitCode": record.exit_code,
        "ProcessConfig": process,
        "OpenStdin": options.attach_stdin,
        "OpenStderr": options.attach_stderr,
        "OpenStdout": options.attach_stdout,
        "CanRemove": record.can_remove,
        "ContainerID": record.container_id,
        "DetachKeys": options.detach_keys,
        "Pid": record.pid,
    }


async def inspect(call: Call) -> Response:
    """GET /exec/{id}/json."""
    return json_response(exec_json(await inspect_exec(call.engine, call.path["id"])))


ROUTES = (
    Route("POST", "/containers/{id}/exec", "ContainerExec", create),
    Route("POST", "/exec/{id}/start", "ExecStart", start),
    Route("POST", "/exec/{id}/resize", "ExecResize", resize),
    Route("GET", "/exec/{id}/json", "ExecInspect", inspect),
)
