"""Packed versions, which Docker doesn't have: POST /tare/pack, GET /tare/pack."""

from __future__ import annotations

from tare.api.call import Call, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine.engine import in_thread
from tare.engine.pack import pack_versions
from tare.storage.chunks.check import pack_usage


async def pack(call: Call) -> Response:
    """POST: packs all older versions that no container sees; unpack=1 makes them all plain."""
    done = await pack_versions(call.engine, unpack=call.flag("unpack"))
    return json_response({"Files": done.files, "SpaceReclaimed": done.freed_bytes, "Waiting": done.waiting})


async def usage(call: Call) -> Response:
    """GET: how many files are packed, what they show as their sizes, and what the packs take."""
    packing = call.engine.layers.packing
    found = await in_thread(pack_usage, packing)
    return json_response(
        {"Files": found.files, "Size": found.plain_bytes, "Packs": found.pack_bytes, "SharesBlocks": packing.shares}
    )


ROUTES = (
    Route("POST", "/tare/pack", "TarePack", pack, finishes=True),
    Route("GET", "/tare/pack", "TarePackUsage", usage),
)
