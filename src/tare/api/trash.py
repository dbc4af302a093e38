"""The trash, which Docker doesn't have: GET and DELETE /tare/trash, DELETE /tare/trash/{id}, POST …/{id}/restore."""

from __future__ import annotations

from typing import Any

from tare.api.call import Call, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine import trash
from tare.engine.trash_store import Trashed
from tare.values.timestamps import format_rfc3339


def _entry_json(entry: Trashed, keep_s: int) -> dict[str, Any]:
    container = entry.container
    return {
        "Kind": "container",
        "Id": container.id,
        "Name": container.name,
        "Image": container.image_reference,
        "Removed": format_rfc3339(entry.removed_ns),
        "Until": format_rfc3339(entry.removed_ns + keep_s * 10**9),
        "Size": entry.size_bytes,
    }


async def list_(call: Call) -> Response:
    """GET /tare/trash: what waits, oldest first."""
    keep_s = call.engine.settings.trash_keep_s
    return json_response([_entry_json(entry, keep_s) for entry in call.engine.trash])


async def restore(call: Call) -> Response:
    """POST /tare/trash/{id}/restore: brings a container back, by `name` if that is given."""
    container = await trash.restore_from_trash(call.engine, call.path["id"], call.text("name") or None)
    return json_response({"Id": container.id, "Name": container.name})


async def empty(call: Call) -> Response:
    """DELETE /tare/trash: deletes all that waits, for good."""
    removed, freed = await trash.empty_trash(call.engine, ())
    return json_response({"Deleted": removed, "SpaceReclaimed": freed})


async def empty_one(call: Call) -> Response:
    """DELETE /tare/trash/{id}."""
    removed, freed = await trash.empty_trash(call.engine, (call.path["id"],))
    return json_response({"Deleted": removed, "SpaceReclaimed": freed})


ROUTES = (
    Route("GET", "/tare/trash", "TareTrashList", list_),
    Route("DELETE", "/tare/trash", "TareTrashEmpty", empty, finishes=True),
    Route("DELETE", "/tare/trash/{id}", "TareTrashDelete", empty_one, finishes=True),
    Route("POST", "/tare/trash/{id}/restore", "TareTrashRestore", restore, finishes=True),
)
