"""The verbs of volumes: create, inspect, list, remove, prune."""

from __future__ import annotations

import msgspec

from tare.engine import container_volumes, trash
from tare.engine.engine import Engine, in_thread
from tare.engine.records import PruneReport, VolumeDetail
from tare.errors import Conflict, NotFound
from tare.values.filters import Filters, check_filters, flag, match_labels, match_no_labels
from tare.values.pattern import matcher
from tare.volumes.records import Volume

LIST_FILTERS = ("dangling", "driver", "label", "name")
PRUNE_FILTERS = ("all", "label", "label!")


async def create_volume(
    engine: Engine,
    name: str,
    *,
    driver: str = "",
    options: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> VolumeDetail:
    """Makes a volume, or returns the one of that name, whatever its options (as Docker).

    Raises InvalidArgument, NotFound (no such driver), with Docker's texts.
    """
    volume, is_new = engine.volumes.create(name, driver=driver, options=options, labels=labels)
    if is_new:
        engine.events.publish("volume", "create", volume.name, {"driver": volume.driver})
    return _detail(engine, volume)


def _detail(engine: Engine, volume: Volume) -> VolumeDetail:
    return VolumeDetail(
        name=volume.name,
        driver=volume.driver,
        created_ns=volume.created_ns,
        mountpoint=str(engine.volumes.mountpoint(volume.name)),
        labels=volume.labels,
        options=volume.options,
    )


async def volumes_usage(engine: Engine) -> list[VolumeDetail]:
    """All volumes with their bytes and how many containers have them (what `system df` shows)."""
    return [
        msgspec.structs.replace(
            _detail(engine, volume),
            size_bytes=await in_thread(engine.volumes.usage, volume.name),
            users=len(container_volumes.users_of(engine, volume.name)),
        )
        for volume in engine.volumes
    ]


async def inspect_volume(engine: Engine, name: str) -> VolumeDetail:
    """Raises NotFound with Docker's text."""
    return _detail(engine, engine.volumes.find(name))


async def list_volumes(engine: Engine, filters: Filters) -> list[VolumeDetail]:
    """All volumes that pass the filters. Raises InvalidArgument for a wrong filter."""
    check_filters(filters, LIST_FILTERS)
    wants_dangling = flag(filters, "dangling", False)
    by_name = matcher(filters.get("name", ()))
    used = container_volumes.volumes_in_use(engine) if "dangling" in filters else set()
    return [
        _detail(engine, volume)
        for volume in engine.volumes
        if ("dangling" not in filters or (volume.name not in used) == wants_dangling)
        and ("driver" not in filters or volume.driver in filters["driver"])
        and ("name" not in filters or by_name(volume.name))
        and match_labels(filters, volume.labels or {})
    ]


async def remove_volume(engine: Engine, name: str, *, force: bool = False, keep: bool = True) -> None:
    """Removes a volume that no container has; with force, one that isn't there is no error. keep: see `trash`.

    Raises NotFound, Conflict with the containers' ids, with Docker's texts.
    """
    try:
        container_volumes.destroy(engine, name, container_volumes.users_of(engine, name), keep=keep)
    except NotFound:
        if not force:
            raise
        return
    container_volumes.empty_trash(engine)


async def prune_volumes(engine: Engine, filters: Filters, *, named_too: bool = False, keep: bool = True) -> PruneReport:
    """Removes volumes that no container has: those that the engine named; with `all` (or named_too) every one.

    keep: they wait in the trash, if the engine has one. Raises InvalidArgument for a wrong filter.
    """
    check_filters(filters, PRUNE_FILTERS)
    everything = flag(filters, "all", False) or named_too
    used = container_volumes.volumes_in_use(engine)
    removed: list[str] = []
    freed: list[int] = []
    kept: list[int] = []
    for volume in engine.volumes:
        labels = volume.labels or {}
        if volume.name in used or not (everything or volume.anonymous):
            continue
        if not match_labels(filters, labels) or not match_no_labels(filters, labels):
            continue
        try:
            size = await in_thread(engine.volumes.usage, volume.name)
            waits = keep and trash.is_on(engine)
            users = container_volumes.users_of(engine, volume.name)
            container_volumes.destroy(engine, volume.name, users, keep=waits)
        except (Conflict, NotFound):
            continue  # a container took it, or somebody else removed it meanwhile
        removed.append(volume.name)
        (kept if waits else freed).append(size)
    engine.events.publish("volume", "prune", "", {"reclaimed": str(sum(freed))})
    container_volumes.empty_trash(engine)
    return PruneReport(removed=tuple(removed), reclaimed_bytes=sum(freed), trashed=len(kept), trashed_bytes=sum(kept))
