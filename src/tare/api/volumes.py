"""Volumes: create, list, inspect, remove, prune."""

from __future__ import annotations

from typing import Any

import msgspec

from tare.api import wire
from tare.api.call import Call, empty_response, json_response
from tare.api.messages import Response
from tare.api.pages import Page
from tare.api.pruned import pruned_response
from tare.api.router import Route
from tare.engine import volumes as verbs
from tare.engine.records import VolumeDetail
from tare.errors import InvalidArgument, Unavailable
from tare.values.timestamps import format_rfc3339

ONLY_CLUSTER_VOLUMES = "volume update only valid for cluster volumes, but swarm is unavailable"


class VolumeCreateBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /volumes/create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, object] | None = None


def volume_json(volume: VolumeDetail) -> dict[str, Any]:
    """A volume, as all of these operations show it."""
    made: dict[str, Any] = {
        "CreatedAt": format_rfc3339(volume.created_ns // 10**9 * 10**9),
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options,
        "Scope": "local",
    }
    if volume.size_bytes is not None:
        made["UsageData"] = {"RefCount": volume.users or 0, "Size": volume.size_bytes}
    return made


async def create(call: Call) -> Response:
    """POST /volumes/create."""
    document = await call.json()
    if document is None and call.request.headers.get("content-length", "0") == "0":
        raise InvalidArgument("EOF")
    body = wire.decode(VolumeCreateBody, document)
    if body.cluster_volume_spec is not None:
        raise Unavailable("cluster volumes need a swarm, which is unavailable")
    volume = await verbs.create_volume(
        call.engine, body.name, driver=body.driver, options=body.driver_opts, labels=body.labels
    )
    return json_response(volume_json(volume), 201)


async def list_(call: Call) -> Response:
    """GET /volumes."""
    page = Page(call)
    found = page.cut(await verbs.list_volumes(call.engine, call.filters()), lambda volume: (0, volume.name))
    return json_response({"Volumes": [volume_json(volume) for volume in found], "Warnings": None}, headers=page.headers)


async def inspect(call: Call) -> Response:
    """GET /volumes/{name}."""
    return json_response(volume_json(await verbs.inspect_volume(call.engine, call.path["name"])))


async def update(call: Call) -> Response:
    """PUT /volumes/{name}: there are no cluster volumes, and no others can be updated."""
    raise Unavailable(ONLY_CLUSTER_VOLUMES)


async def remove(call: Call) -> Response:
    """DELETE /volumes/{name}."""
    await verbs.remove_volume(call.engine, call.path["name"], force=call.flag("force"), keep=call.flag("trash", True))
    return empty_response()


async def prune(call: Call) -> Response:
    """POST /volumes/prune: before 1.42 it took named volumes, too."""
    report = await verbs.prune_volumes(
        call.engine, call.filters(), named_too=call.version < (1, 42), keep=call.flag("trash", True)
    )
    return pruned_response("VolumesDeleted", list(report.removed), report)


ROUTES = (
    Route("GET", "/volumes", "VolumeList", list_),
    Route("POST", "/volumes/create", "VolumeCreate", create, finishes=True),
    Route("GET", "/volumes/{name}", "VolumeInspect", inspect),
    Route("PUT", "/volumes/{name}", "VolumeUpdate", update),
    Route("DELETE", "/volumes/{name}", "VolumeDelete", remove, finishes=True),
    Route("POST", "/volumes/prune", "VolumePrune", prune, finishes=True),
)
