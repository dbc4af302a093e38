"""The trash, which Docker doesn't have: GET and DELETE /tare/trash, DELETE /tare/trash/{id}, POST …/{id}/restore."""

from __future__ import annotations

from typing import Any

from tare.api.call import Call, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine import trash
from tare.engine.engine import in_thread
from tare.engine.records import Container
from tare.engine.trash_store import Trashed
from tare.values.timestamps import format_rfc3339


def _entry_json(entry: Trashed, keep_s: int, size_bytes: int) -> dict[str, Any]:
    return {
        "Kind": entry.kind,
        "Id": f"sha256:{entry.id}" if entry.kind == "image" else entry.id,
        "Name": entry.names[0],
        "Names": entry.names,
        "Image": entry.record.image_reference if isinstance(entry.record, Container) else "",
        "Removed": format_rfc3339(entry.removed_ns),
        "Until": format_rfc3339(entry.removed_ns + keep_s * 10**9),
        "Size": size_bytes,
    }


async def list_(call: Call) -> Response:
    """GET /tare/trash: what waits, oldest first; `kind` for containers, volumes or images alone."""
    keep_s, kind = call.engine.settings.trash_keep_s, call.text("kind")
    weights = await in_thread(trash.weights, call.engine)
    entries = [entry for entry in call.engine.trash if kind in ("", entry.kind)]
    return json_response([_entry_json(entry, keep_s, weights.get(entry.id, entry.size_bytes)) for entry in entries])


async def restore(call: Call) -> Response:
    """POST /tare/trash/{id}/restore: brings a thing back, by `name` if that is given; `kind` says which is meant."""
    found = await trash.restore_from_trash(
        call.engine, call.path["id"], name=call.text("name") or None, kind=call.text("kind")
    )
    made: dict[str, Any] = {"Kind": found.kind, "Id": found.id, "Name": found.name}
    if found.taken:
        made["Taken"] = found.taken
    return json_response(made)


async def empty(call: Call) -> Response:
    """DELETE /tare/trash: deletes all that waits (of a `kind`), for good."""
    removed, freed = await trash.empty_trash(call.engine, (), call.text("kind"))
    return json_response({"Deleted": removed, "SpaceReclaimed": freed})


async def empty_one(call: Call) -> Response:
    """DELETE /tare/trash/{id}."""
    removed, freed = await trash.empty_trash(call.engine, (call.path["id"],), call.text("kind"))
    return json_response({"Deleted": removed, "SpaceReclaimed": freed})


ROUTES = (
    Route("GET", "/tare/trash", "TareTrashList", list_),
    Route("DELETE", "/tare/trash", "TareTrashEmpty", empty, finishes=True),
    Route("DELETE", "/tare/trash/{id}", "TareTrashDelete", empty_one, finishes=True),
    Route("POST", "/tare/trash/{id}/restore", "TareTrashRestore", restore, finishes=True),
)
