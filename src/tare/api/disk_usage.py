"""GET /system/df: the ledger of disk space, in the shape until 1.51 and in that since 1.52."""

from __future__ import annotations

from typing import Any

from tare.api import container_json, image_json
from tare.api.call import Call, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.api.volumes import volume_json
from tare.engine.disk_usage import DiskUsage, Share, disk_usage
from tare.values.timestamps import now_ns

Items = dict[str, list[Any] | None]
Version = tuple[int, int]


def _items(found: DiskUsage, version: Version) -> Items:
    """The single images, containers and volumes; None for a type that wasn't asked for."""
    images = containers = volumes = None
    if found.images is not None:
        images = [
            {**image_json.summary_json(summary, version), "Containers": summary.containers} for summary in found.images
        ]
    if found.containers is not None:
        now = now_ns()
        containers = [container_json.summary_json(summary, version, now) for summary in found.containers]
    if found.volumes is not None:
        volumes = [volume_json(volume) for volume in found.volumes]
    return {"Images": images, "Containers": containers, "Volumes": volumes}


def old_json(found: DiskUsage, items: Items, wanted: tuple[str, ...], version: Version) -> dict[str, Any]:
    """What Docker answered until 1.51."""
    made: dict[str, Any] = {
        "LayersSize": found.image_share.size_bytes if found.image_share else 0,
        **items,
        "BuildCache": [] if not wanted or "build-cache" in wanted else None,
    }
    if version < (1, 42):
        made["BuilderSize"] = 0
    return made


def _share_json(share: Share, items: list[Any] | None, verbose: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "ActiveCount": share.active,
        "TotalCount": share.total,
        "Reclaimable": share.reclaimable_bytes,
        "TotalSize": share.size_bytes,
    }
    if verbose and items:
        made["Items"] = items
    return made


def new_json(found: DiskUsage, items: Items, wanted: tuple[str, ...], *, verbose: bool) -> dict[str, Any]:
    """What it answers since 1.52: sums, and single things only if asked for."""
    made: dict[str, Any] = {}
    for key, plural, share in (
        ("ImageUsage", "Images", found.image_share),
        ("ContainerUsage", "Containers", found.container_share),
        ("VolumeUsage", "Volumes", found.volume_share),
    ):
        if share is not None:
            made[key] = _share_json(share, items[plural], verbose)
    if not wanted or "build-cache" in wanted:
        nothing = Share(total=0, active=0, size_bytes=0, reclaimable_bytes=0)
        made["BuildCacheUsage"] = _share_json(nothing, None, verbose)
    return made


async def usage(call: Call) -> Response:
    """GET /system/df. Beside Docker's keys, `Tare` has what Docker doesn't count."""
    wanted = tuple(call.repeated.get("type", ()))
    found = await disk_usage(call.engine, wanted)
    items = _items(found, call.version)
    made: dict[str, Any] = {}
    if call.version < (1, 53):
        made |= old_json(found, items, wanted, call.version)
    if call.version >= (1, 52):
        made |= new_json(found, items, wanted, verbose=call.flag("verbose"))
    if not wanted:
        made["Tare"] = {
            "Logs": found.log_bytes or {},
            "Trash": {"Count": found.trash_count, "Size": found.trash_bytes},
            "OtherSize": found.other_bytes or 0,
            "Ledger": [
                {"Owner": each.owner, "Count": each.count, "Size": each.size_bytes, "Disk": each.disk_bytes}
                for each in found.ledger
            ],
        }
    return json_response(made)


ROUTES = (Route("GET", "/system/df", "SystemDataUsage", usage),)
