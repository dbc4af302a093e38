"""A container's mounts through its life: volumes made and filled at create, mounted at start, let go at the end.

What a container has is in its record; who uses a volume is asked of the records each time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterable, Iterator

import msgspec

from tare import faults
from tare.engine import image_mounts, mount_specs, mounts, trash, trash_volumes, unfinished
from tare.engine.engine import Engine, in_thread
from tare.engine.mount_specs import Wanted
from tare.engine.options import ContainerConfig, HostOptions
from tare.engine.records import Container, MountPoint
from tare.errors import InvalidArgument, NotFound, TareError
from tare.storage.database import making_room
from tare.volumes import copy_up, shared
from tare.volumes.records import ANONYMOUS_LABEL, Volume


def wanted_mounts(engine: Engine, config: ContainerConfig, host: HostOptions) -> tuple[Wanted, ...]:
    """All mounts that a container is to have, later kinds over earlier: from others, its own, its image's.

    Raises InvalidArgument, Unsupported, with Docker's texts.
    """
    found: dict[str, Wanted] = {}
    for text in host.volumes_from or ():
        for wanted in _inherited(engine, text):
            found[wanted.point.destination] = wanted
    tmpfs = {mount_specs.check_destination(target, "tmpfs") for target in host.tmpfs or {}}
    taken = set(tmpfs)
    own = [mount_specs.parse_bind(text, host.volume_driver) for text in host.binds or ()]
    own += [mount_specs.parse_mount(mount) for mount in host.mounts or ()]
    for wanted in own:
        destination = wanted.point.destination
        if destination in taken:
            raise InvalidArgument(f"Duplicate mount point: {destination}")
        taken.add(destination)
        found[destination] = wanted
    for target in config.volumes or {}:
        wanted = mount_specs.image_volume(target, host.volume_driver)
        if wanted.point.destination not in found and wanted.point.destination not in tmpfs:
            found[wanted.point.destination] = wanted
    mounts.check_sources(host)
    return tuple(found.values())


def _inherited(engine: Engine, text: str) -> Iterator[Wanted]:
    ref, writable = mount_specs.parse_volumes_from(text)
    try:
        owner = engine.containers.find(ref)
    except NotFound as error:
        raise InvalidArgument(str(error)) from error  # 400, as Docker has it here
    for point in owner.mounts:
        if point.type != "tmpfs":
            yield mount_specs.inherit(point, writable)


@contextlib.asynccontextmanager
async def prepared(
    engine: Engine, container_id: str, wanted: tuple[Wanted, ...], *, pending: str = ""
) -> AsyncIterator[tuple[MountPoint, ...]]:
    """The mounts of a container that is being made; its snapshot is there, its record isn't.

    pending: for mounts that are added to a container: an id that no container has.

    Missing volumes are made and empty ones filled from the image. The block stores the container; if it raises, or if
    the engine dies before, anonymous volumes made here go again (named ones stay, as Docker has it).
    """
    made: list[Volume] = []
    points: list[MountPoint] = []
    with contextlib.ExitStack() as holds:
        try:
            for each in wanted:
                point = each.point
                if point.type == "volume":
                    point = _volume_point(engine, pending or container_id, each, made)
                    holds.enter_context(engine.volumes.held((point.name,)))
                elif point.type == "image":
                    point = await in_thread(image_mounts.prepare, engine, container_id, point)
                points.append(point)
            faults.point("engine.create.volumes")
            for each, point in zip(wanted, points, strict=True):
                if point.type == "volume" and not point.no_copy and not point.subpath:
                    await _fill(engine, container_id, point, is_image_volume=not each.point.mode)
            faults.point("engine.create.filled")
            yield tuple(points)
        except BaseException:
            holds.close()
            image_mounts.remove(engine, container_id, points)
            _remove_volumes(engine, [volume.name for volume in made if volume.anonymous])
            raise
        if made:
            engine.volumes.settle(pending or container_id)


def _volume_point(engine: Engine, pending: str, wanted: Wanted, made: list[Volume]) -> MountPoint:
    point = wanted.point
    if wanted.inherited:
        engine.volumes.find(point.name)
        return point
    volume, is_new = engine.volumes.create(
        point.name,
        driver=wanted.driver,
        options=wanted.options,
        labels=wanted.labels,
        pending=pending,
        durable=not point.anonymous,  # an anonymous one's row is on the disk with the container's, if that is to be
    )
    if is_new:
        made.append(volume)
        engine.events.publish("volume", "create", volume.name, {"driver": volume.driver})
    return msgspec.structs.replace(
        point,
        name=volume.name,
        source=str(engine.volumes.mountpoint(volume.name)),
        driver=volume.driver,
        local=volume.mount,
    )


async def _fill(engine: Engine, container_id: str, point: MountPoint, *, is_image_volume: bool) -> None:
    """Copy-up; one at a time for a volume, since two could find it empty at once."""
    async with engine.lock(f"volume {point.name}"):
        await in_thread(_fill_now, engine, container_id, point, is_image_volume)


def _fill_now(engine: Engine, container_id: str, point: MountPoint, is_image_volume: bool) -> None:
    with engine.snapshots.stack(container_id) as stack:
        if is_image_volume and copy_up.is_file(stack, point.destination):
            raise InvalidArgument(f"cannot mount volume over existing file, file exists {point.destination}")
        engine.volumes.fill(point.name, stack, point.destination)


@contextlib.asynccontextmanager
async def mounted(engine: Engine, container: Container) -> AsyncIterator[None]:
    """While a container starts: its volumes are there, and what they mount is mounted; not any more if that fails.

    Raises InvalidArgument (a volume can't be mounted).
    """
    points = [point for point in container.mounts if point.type == "volume"]
    try:
        with engine.volumes.held([point.name for point in points]):
            for point in points:
                await _mount(engine, point)
            faults.point("engine.start.volumes")
            yield
    except BaseException:
        _unmount_unused(engine, points)
        raise


async def _mount(engine: Engine, point: MountPoint) -> None:
    if engine.volumes.get(point.name) is None:
        _make_again(engine, point)
    engine.volumes.check_limit(point.name)
    if point.local is not None and not point.local.is_bind:
        async with engine.lock(f"volume {point.name}"):
            await in_thread(shared.mount, engine.volumes.mountpoint(point.name), point.local)


def _make_again(engine: Engine, point: MountPoint) -> None:
    """The volume of a container that came back from the trash without it: empty, with the options that it had."""
    local = point.local
    options = {"type": local.type, "device": local.device, "o": ",".join(local.options)} if local else None
    labels = {ANONYMOUS_LABEL: ""} if point.anonymous else None
    volume, _ = engine.volumes.create(point.name, driver=point.driver, options=options, labels=labels)
    engine.events.publish("volume", "create", volume.name, {"driver": volume.driver})


def publish_mounted(engine: Engine, container: Container) -> None:
    """The events of a container's start."""
    for point in container.mounts:
        if point.type == "volume":
            engine.events.publish(
                "volume",
                "mount",
                point.name,
                {
                    "container": container.id,
                    "destination": point.destination,
                    "driver": point.driver,
                    "propagation": point.propagation,
                    "read/write": "true" if point.rw else "false",
                },
            )


def release(engine: Engine, container: Container) -> None:
    """A container has ended, and its record says so: unmounts what only it had, and publishes the events.

    What fails of that is tried again beside: the end is none of its business.
    """
    points = [point for point in container.mounts if point.type == "volume"]
    try:
        _unmount_unused(engine, points)
    except Exception as error:

        async def again() -> None:
            _unmount_unused(engine, points)

        what = f"unmount the volumes of {container.id[:12]}"
        unfinished.finish_later(engine, f"mounts of {container.id}", what, again, error)
    for point in points:
        attributes = {"container": container.id, "driver": point.driver}
        engine.events.publish("volume", "unmount", point.name, attributes)


def let_go(engine: Engine, container: Container) -> None:
    """Unmounts what was mounted for a container that doesn't run, to look into it."""
    _unmount_unused(engine, [point for point in container.mounts if point.type == "volume"])


def _unmount_unused(engine: Engine, points: Iterable[MountPoint]) -> None:
    names = [point.name for point in points if point.local is not None and not point.local.is_bind]
    if names:
        engine.volumes.unmount_unused(names, volumes_in_use(engine, running=True))


def unmount_forgotten(engine: Engine) -> None:
    """After a restart, once it is known what runs: unmounts what an engine that was killed left mounted."""
    names = [volume.name for volume in engine.volumes]
    engine.volumes.unmount_unused(names, volumes_in_use(engine, running=True))


def volumes_in_use(engine: Engine, *, running: bool = False) -> set[str]:
    """Names of the volumes that containers have; running: only of those with processes."""
    return {
        point.name
        for container in engine.containers
        if not running or container.state.status in ("running", "paused")
        for point in container.mounts
        if point.type == "volume"
    }


def users_of(engine: Engine, name: str) -> list[str]:
    """The ids of the containers that have a volume."""
    return [
        container.id
        for container in engine.containers
        if any(point.type == "volume" and point.name == name for point in container.mounts)
    ]


def mark_leaving(engine: Engine, container: Container) -> list[str]:
    """Before a container's record goes: its anonymous volumes are to go, too, even if the engine dies in between."""
    names = [point.name for point in container.mounts if point.type == "volume" and point.anonymous]
    if names:
        engine.volumes.mark(names, container.id)
    return names


def remove_left(engine: Engine, container_id: str, names: list[str], *, keep: bool = False) -> None:
    """Once its record is gone: removes the marked volumes that no other container has. keep: they wait in the trash."""
    if not names:
        return
    _remove_volumes(engine, names, keep=keep)
    engine.volumes.settle(container_id)


def discard_left(engine: Engine, name: str, container_id: str) -> None:
    """After a crash: a volume that was to go with a container goes where that went, the trash or nowhere."""
    if engine.trash.holds(container_id):
        trash_volumes.throw(engine, name, ())
    else:
        engine.volumes.remove(name)


def _remove_volumes(engine: Engine, names: Iterable[str], *, keep: bool = False) -> None:
    used = volumes_in_use(engine)
    removed = 0
    for name in names:
        if name in used or engine.volumes.get(name) is None or engine.volumes.is_held(name):
            continue
        with contextlib.suppress(TareError):
            destroy(engine, name, (), keep=keep)
            removed += 1
    if removed:
        empty_trash(engine)


def destroy(engine: Engine, name: str, users: Iterable[str], *, keep: bool = False) -> Volume:
    """Removes a volume and says so; keep: it waits in the trash, if the engine has one. Raises NotFound, Conflict."""
    volume = engine.volumes.find(name)
    try:
        with making_room():
            if keep and trash.is_on(engine):
                trash.thrown(engine, trash_volumes.throw(engine, name, tuple(users)))
            else:
                engine.volumes.remove(name, tuple(users))
    except Exception as error:
        if engine.volumes.get(name) is not None:
            raise
        put_away = functools.partial(_put_away, engine, name)
        unfinished.finish_later(engine, f"volume {name}", f"put away the files of volume {name}", put_away, error)
    engine.events.publish("volume", "destroy", name, {"driver": volume.driver})
    return volume


async def _put_away(engine: Engine, name: str) -> None:
    engine.volumes.finish_removal(name, engine.trash.volumes())
    empty_trash(engine)
    await trash.settle_all(engine)


def empty_trash(engine: Engine) -> None:
    """Gives the space of removed volumes back, beside the caller."""
    engine.spawn(in_thread(engine.volumes.empty_trash), "empty the trash of volumes")
