"""disk usage: an honest ledger of the data root, in which every byte has an owner."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tare.engine import image_verbs, listing, volumes
from tare.engine.engine import Engine, in_thread
from tare.engine.image_verbs import ImageSummary
from tare.engine.ledger import LISTED, Owned, ledger, only_in_trash
from tare.engine.records import ContainerSummary, VolumeDetail
from tare.errors import InvalidArgument
from tare.storage.usage import usage

TYPES = ("container", "image", "volume", "build-cache")


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger. active: how many are in use. reclaimable_bytes: what removing the others would free."""

    total: int
    active: int
    size_bytes: int
    reclaimable_bytes: int


class DiskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger; what wasn't asked for is None.

    log_bytes: logs and other files of containers beside their layers, by container. other_bytes: all that belongs to
    neither images, containers, volumes, logs nor the trash. ledger: every byte of the data root; see ledger.py.
    """

    images: list[ImageSummary] | None = None
    image_share: Share | None = None
    containers: list[ContainerSummary] | None = None
    container_share: Share | None = None
    log_bytes: dict[str, int] | None = None
    volumes: list[VolumeDetail] | None = None
    volume_share: Share | None = None
    trash_count: int = 0
    trash_bytes: int = 0
    other_bytes: int | None = None
    ledger: tuple[Owned, ...] = ()


async def disk_usage(engine: Engine, types: tuple[str, ...]) -> DiskUsage:
    """What uses how much disk space; no types: all of them. Raises InvalidArgument for an unknown type."""
    for name in types:
        if name not in TYPES:
            raise InvalidArgument(f"unknown object type: {name}")
    wanted = types or TYPES
    found = DiskUsage()
    if "image" in wanted:
        images = await image_verbs.list_images(engine, all=False, filters={}, shared_size=True, digests=False)
        share = await in_thread(_image_share, engine, images)
        found = msgspec.structs.replace(found, images=images, image_share=share)
    if "container" in wanted:
        containers = await listing.list_containers(engine, all=True, limit=None, size=True, filters={})
        logs = await in_thread(_log_bytes, engine)
        share = _container_share(containers, logs)
        found = msgspec.structs.replace(found, containers=containers, container_share=share, log_bytes=logs)
    if "volume" in wanted:
        kept = await volumes.volumes_usage(engine)
        found = msgspec.structs.replace(found, volumes=kept, volume_share=_volume_share(kept))
    if not types:
        owned = await in_thread(ledger, engine)
        others = [each.size_bytes for each in owned if each.owner not in LISTED]
        trash = next(each for each in owned if each.owner == "trash")
        found = msgspec.structs.replace(
            found,
            trash_count=trash.count,
            trash_bytes=trash.size_bytes,
            other_bytes=sum(others),
            ledger=owned,
        )
    return found


def _image_share(engine: Engine, images: list[ImageSummary]) -> Share:
    """A layer counts once. Free to go is what no container, and no image of a container, needs."""
    needed = {diff_id for container in engine.containers for diff_id in container.layers}
    for summary in images:
        if summary.containers:
            needed.update(summary.image.diff_ids)
    waiting = only_in_trash(engine)
    layers = [layer for layer in engine.layers.all() if layer.diff_id not in waiting]
    return Share(
        total=len(images),
        active=sum(1 for summary in images if summary.containers),
        size_bytes=sum(layer.size_bytes for layer in layers),
        reclaimable_bytes=sum(layer.size_bytes for layer in layers if layer.diff_id not in needed),
    )


def _container_share(containers: list[ContainerSummary], logs: dict[str, int]) -> Share:
    sizes = {summary.container.id: summary.size_rw_bytes or 0 for summary in containers}
    idle = [summary.container.id for summary in containers if not summary.container.state.running]
    return Share(
        total=len(containers),
        active=len(containers) - len(idle),
        size_bytes=sum(sizes.values()),
        reclaimable_bytes=sum(sizes[container_id] for container_id in idle),
    )


def _volume_share(kept: list[VolumeDetail]) -> Share:
    return Share(
        total=len(kept),
        active=sum(1 for volume in kept if volume.users),
        size_bytes=sum(volume.size_bytes or 0 for volume in kept),
        reclaimable_bytes=sum(volume.size_bytes or 0 for volume in kept if not volume.users),
    )


def _log_bytes(engine: Engine) -> dict[str, int]:
    return {container.id: _usage(engine.container_dir(container.id)) for container in engine.containers}


def _usage(directory: Path) -> int:
    try:
        return usage(directory)
    except FileNotFoundError:
        return 0  # removed meanwhile
