"""The check of the data root, which Docker doesn't have: GET /tare/fsck, POST /tare/fsck, DELETE /tare/originals."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from tare.api.call import Call, json_response
from tare.api.errors import text_of
from tare.api.json_lines import line
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine.fsck import Checked, Finding, Told, drop_originals, fsck


async def check(call: Call) -> Response:
    """GET: what is wrong, a JSON object a line. contents=0: bytes aren't read."""
    return _answer(call, repair=False)


async def repair(call: Call) -> Response:
    """POST: the same, and what can be repaired is."""
    return _answer(call, repair=True)


def _answer(call: Call, *, repair: bool) -> Response:
    told = fsck(call.engine, repair=repair, contents=call.flag("contents", True))
    return Response(200, {"Content-Type": "application/x-ndjson"}, _lines(told))


async def _lines(told: AsyncGenerator[Told, None]) -> AsyncIterator[bytes]:
    try:
        async for item in told:
            yield line(_json(item))
    except Exception as error:
        yield line({"Error": text_of(error, "fsck")})
    finally:
        await told.aclose()


def _json(item: Told) -> dict[str, Any]:
    if isinstance(item, str):
        return {"Looking": item}
    if isinstance(item, Finding):
        return {
            "Finding": {
                "Kind": item.kind,
                "Subject": item.subject,
                "Problem": item.problem,
                "Remedy": item.remedy,
                "Repaired": item.repaired,
            }
        }
    assert isinstance(item, Checked)
    return {"Done": {name.capitalize(): getattr(item, name) for name in item.__struct_fields__}}


async def drop(call: Call) -> Response:
    """DELETE /tare/originals: compressed layers that are kept as they came are given up."""
    freed = await drop_originals(call.engine)
    return json_response({"SpaceReclaimed": freed})


ROUTES = (
    Route("GET", "/tare/fsck", "TareFsck", check),
    Route("POST", "/tare/fsck", "TareFsckRepair", repair),
    Route("DELETE", "/tare/originals", "TareOriginalsDrop", drop, finishes=True),
)
