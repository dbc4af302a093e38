"""What moves a container from one state to the next: start, stop, restart, kill, pause, unpause, resize, wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec

from tare.api.call import JSON_TYPE, MAX_JSON_BYTES, Call, empty_response, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine.kill import kill_container
from tare.engine.pause import pause_container, unpause_container
from tare.engine.records import WaitResult
from tare.engine.resize import resize_container
from tare.engine.restart import restart_container
from tare.engine.start import start_container
from tare.engine.stop import stop_container
from tare.engine.wait import wait_container
from tare.engine.why import explain
from tare.errors import InvalidArgument, Unsupported

_START_BODY = "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"


async def start(call: Call) -> Response:
    """POST /containers/{id}/start. A body changed the container's settings before 1.24; an empty object passes."""
    if len(await call.request.body.read_whole(MAX_JSON_BYTES)) > len("{}") + 5:
        raise InvalidArgument(_START_BODY)
    if call.text("checkpoint"):
        raise Unsupported("start from a checkpoint is not supported by Tare yet")
    await start_container(call.engine, call.path["id"])
    return empty_response()


async def stop(call: Call) -> Response:
    """POST /containers/{id}/stop."""
    await stop_container(call.engine, call.path["id"], signal=call.text("signal") or None, timeout_s=call.number("t"))
    return empty_response()


async def restart(call: Call) -> Response:
    """POST /containers/{id}/restart."""
    await restart_container(
        call.engine, call.path["id"], signal=call.text("signal") or None, timeout_s=call.number("t")
    )
    return empty_response()


async def kill(call: Call) -> Response:
    """POST /containers/{id}/kill."""
    await kill_container(call.engine, call.path["id"], signal=call.text("signal") or "SIGKILL")
    return empty_response()


async def pause(call: Call) -> Response:
    """POST /containers/{id}/pause."""
    await pause_container(call.engine, call.path["id"])
    return empty_response()


async def unpause(call: Call) -> Response:
    """POST /containers/{id}/unpause."""
    await unpause_container(call.engine, call.path["id"])
    return empty_response()


def window_size(call: Call) -> tuple[int, int]:
    """(height, width) of a resize. Raises InvalidArgument, with Go's text also where one is missing."""
    sizes = []
    for name in ("h", "w"):
        if not call.text(name):
            call = call._replace(query={**call.query, name: " "})
        sizes.append(call.number(name) or 0)
    return sizes[0], sizes[1]


async def resize(call: Call) -> Response:
    """POST /containers/{id}/resize."""
    height, width = window_size(call)
    await resize_container(call.engine, call.path["id"], height=height, width=width)
    return empty_response(200)


class _Waiting:
    """The body of wait's answer: one document, when the container has got there. Begins to wait when it is made."""

    def __init__(self, result: Awaitable[WaitResult], version: tuple[int, int]) -> None:
        self._task = asyncio.ensure_future(result)
        self._version = version
        self._sent = False

    def __aiter__(self) -> _Waiting:
        return self

    async def __anext__(self) -> bytes:
        if self._sent:
            raise StopAsyncIteration
        result = await self._task
        self._sent = True
        return msgspec.json.encode(wait_json(result, self._version)) + b"\n"

    async def aclose(self) -> None:
        self._task.cancel()


def wait_json(result: WaitResult, version: tuple[int, int]) -> dict[str, Any]:
    """What wait answers; without an error, older Docker said so with null."""
    made: dict[str, Any] = {"StatusCode": result.exit_code}
    if result.error:
        made["Error"] = {"Message": result.error}
    elif version < (1, 42):
        made["Error"] = None
    return made


async def wait(call: Call) -> Response:
    """POST /containers/{id}/wait: the headers go out at once, so that a client knows that it won't miss the end."""
    result = await wait_container(call.engine, call.path["id"], call.text("condition"))
    return Response(200, JSON_TYPE, _Waiting(result, call.version))


async def why(call: Call) -> Response:
    """GET /containers/{id}/why, which Docker doesn't have: what became of a container, in plain words."""
    found = await explain(call.engine, call.path["id"])
    return json_response({"Summary": found.summary, "Details": list(found.details), "Output": list(found.output)})


ROUTES = (
    Route("GET", "/containers/{id}/why", "TareContainerWhy", why),
    Route("POST", "/containers/{id}/start", "ContainerStart", start, finishes=True),
    Route("POST", "/containers/{id}/stop", "ContainerStop", stop, finishes=True),
    Route("POST", "/containers/{id}/restart", "ContainerRestart", restart, finishes=True),
    Route("POST", "/containers/{id}/kill", "ContainerKill", kill, finishes=True),
    Route("POST", "/containers/{id}/pause", "ContainerPause", pause, finishes=True),
    Route("POST", "/containers/{id}/unpause", "ContainerUnpause", unpause, finishes=True),
    Route("POST", "/containers/{id}/resize", "ContainerResize", resize),
    Route("POST", "/containers/{id}/wait", "ContainerWait", wait),
)
