"""A container's stdio over HTTP: attach and logs."""

from __future__ import annotations

from tare.api import websocket
from tare.api.call import Call
from tare.api.messages import Response
from tare.api.raw_streams import Unframed, hijack, join, stream_type
from tare.api.router import Route
from tare.engine.attach import attach_container
from tare.engine.logs import clear_logs, container_logs
from tare.engine.options import AttachOptions, LogsOptions
from tare.errors import InvalidArgument
from tare.values.timestamps import parse_instant

MAX_IGNORED_BODY_BYTES = 1 << 20


def _attach_options(call: Call) -> AttachOptions:
    return AttachOptions(
        logs=call.flag("logs"),
        stream=call.flag("stream"),
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        detach_keys=call.text("detachKeys"),
    )


async def attach(call: Call) -> Response | None:
    """POST /containers/{id}/attach: hijacks the connection."""
    await call.request.body.read_whole(MAX_IGNORED_BODY_BYTES)
    session = await attach_container(call.engine, call.path["id"], _attach_options(call))
    try:
        duplex = hijack(call, stream_type(session.tty, call.version))
    except BaseException:
        await session.close()
        raise
    await join(duplex, session)
    return None


async def attach_websocket(call: Call) -> Response | None:
    """GET /containers/{id}/attach/ws: the same in a WebSocket, without frames around the output."""
    websocket.check_handshake(call.request)
    session = await attach_container(call.engine, call.path["id"], _attach_options(call))
    try:
        socket = websocket.accept(call.request)
    except BaseException:
        await session.close()
        raise
    await join(socket, session if session.tty else Unframed(session))
    return None


def _tail(text: str) -> int | None:
    """How many lines; everything that isn't a number means all, as in Docker."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None


def _instant(call: Call, name: str) -> int:
    text = call.text(name)
    return max(0, parse_instant(text)) if text and text != "0" else 0


async def logs(call: Call) -> Response:
    """GET /containers/{id}/logs."""
    options = LogsOptions(
        follow=call.flag("follow"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        since_ns=_instant(call, "since"),
        until_ns=_instant(call, "until"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        tail=_tail(call.text("tail", "all")),
    )
    if not (options.stdout or options.stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    stream = await container_logs(call.engine, call.path["id"], options)
    return Response(200, {"Content-Type": stream_type(stream.tty, call.version)}, aiter(stream))


async def clear(call: Call) -> Response:
    """DELETE /containers/{id}/logs, which Docker doesn't have: empties the log."""
    await clear_logs(call.engine, call.path["id"])
    return Response(204)


ROUTES = (
    Route("POST", "/containers/{id}/attach", "ContainerAttach", attach),
    Route("GET", "/containers/{id}/attach/ws", "ContainerAttachWebsocket", attach_websocket),
    Route("GET", "/containers/{id}/logs", "ContainerLogs", logs),
    Route("DELETE", "/containers/{id}/logs", "TareContainerLogsClear", clear),
)
