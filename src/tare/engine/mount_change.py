"""Mounts of a container that may be running: added and taken back (`update`; Tare's own).

What the container's record says is what is to be; while the kernel is made to agree, the record says which change is on
its way, so that `take_up` can finish it after a crash:

    record + change "add"    ─▶ mounted   ─▶ record            killed before the end: it is mounted then
    record + change "remove" ─▶ unmounted ─▶ record without it  killed before the end: it is taken away then
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import msgspec

from tare import faults
from tare.engine import container_volumes, image_mounts, mount_specs, mounts
from tare.engine.engine import Engine, Live, in_thread
from tare.engine.mount_specs import check_destination
from tare.engine.oci_spec import MASKED_PATHS, READONLY_PATHS
from tare.engine.options import HostOptions, MountOptions
from tare.engine.records import Container, MountChange, MountPoint
from tare.engine.running_root import mounted_at, running_root
from tare.errors import Conflict, Internal, InvalidArgument, NotFound, TareError
from tare.runtime.live_mounts import plan_mount, plan_unmount
from tare.values.ids import new_id

ETC_FILES = ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts")
ENGINES_OWN = (
    *("/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/sys", "/sys/fs/cgroup"),
    *(*ETC_FILES, *READONLY_PATHS, *MASKED_PATHS),
)
"""Where the engine itself mounts something in every container."""


async def change_mounts(
    engine: Engine,
    container_id: str,
    add: tuple[MountOptions, ...],
    remove: tuple[str, ...],
    undo: contextlib.AsyncExitStack,
) -> None:
    """Takes mounts away and adds others, at once if the container runs; its record keeps it.

    undo: gets what takes each change back. The caller holds the container's lock. Raises InvalidArgument, NotFound,
    Conflict (in use, or another mount is in the way), Unsupported; then what was changed before is in `undo`.
    """
    wanted = {_place(mount): mount for mount in add}  # what is wrong is refused before anything is changed
    done = set()
    for target in remove:
        before, place = engine.containers.find(container_id), check_destination(target, "bind")
        there = place in destinations(before)
        if place in wanted and (not there or _option(before.host, place) == wanted[place]):
            # The same change has been cut short.
            done |= {place} if there else set()
            continue
        await _remove(engine, before, place)
        undo.push_async_callback(_restore, engine, before, place)
    for mount in add:
        if _place(mount) not in done:
            point = await _add(engine, engine.containers.find(container_id), mount)
            undo.push_async_callback(_remove_again, engine, container_id, point)


def destinations(container: Container) -> set[str]:
    """Where the user has something mounted in a container."""
    tmpfs = {check_destination(target, "tmpfs") for target in container.host.tmpfs or {}}
    return tmpfs | {point.destination for point in container.mounts}


async def _add(engine: Engine, container: Container, mount: MountOptions) -> MountPoint:
    wanted = mount_specs.parse_mount(mount)
    destination = wanted.point.destination
    if destination in destinations(container):
        raise InvalidArgument(f"Duplicate mount point: {destination}")
    alone = HostOptions(mounts=(mount,))
    mounts.check_sources(alone)
    live = engine.live.get(container.id)
    if live is not None:
        _check_etc_files(destination, "mount anything at")
    only = container
    try:
        async with container_volumes.prepared(engine, container.id, (wanted,), pending=new_id()) as points:
            point = points[0]
            if live is None:
                container = engine.containers.find(container.id)
                engine.containers.save(_with(container, point, mount), durable=True)
                return point
            only = msgspec.structs.replace(container, mounts=(point,))
            async with container_volumes.mounted(engine, only):
                await _mount_live(engine, live, container.id, point, mount)
    except BaseException:
        container_volumes.let_go(engine, only)  # now that nothing holds the volume any more
        raise
    container_volumes.publish_mounted(engine, only)
    return point


async def _mount_live(engine: Engine, live: Live, container_id: str, point: MountPoint, mount: MountOptions) -> None:
    """Stores and mounts, or neither. The mount's volume is ready."""
    container = engine.containers.find(container_id)
    change = MountChange(action="add", destination=point.destination)
    engine.containers.save(msgspec.structs.replace(_with(container, point, mount), change=change), durable=True)
    may_be_there = False
    try:
        faults.point("engine.mounts.recorded")
        await _attach(engine, live, container, point, mount)
        may_be_there = True
        faults.point("engine.mounts.attached")
        engine.containers.save(_settled(engine, container_id), durable=True)
    except BaseException as error:
        now = _settled(engine, container_id)
        # a worker that was killed doesn't tell how far it had come
        if may_be_there or (type(error) is Internal and mounted_at(live.pid, point.destination)):
            with contextlib.suppress(TareError):
                await _detach(engine, live, now, point.destination, again=True)
            now = _settled(engine, container_id)
            may_be_there = mounted_at(live.pid, point.destination)  # it can't be taken away: then it is the container's
        engine.containers.save(now if may_be_there else _without(now, point.destination), durable=True)
        raise


async def _attach(
    engine: Engine,
    live: Live,
    container: Container,
    point: MountPoint,
    mount: MountOptions | None,
    *,
    again: bool = False,
) -> None:
    host = HostOptions(mounts=(mount,) if mount is not None else ())
    mounts.prepare_sources(host)
    mounts.check_propagation((point,))
    (planned,) = mounts.oci_mounts(host, (point,), image_mounts.layers(engine, container.id, (point,)))
    async with _inside(live) as (root_fd, namespace_fd):
        owner = (container.ids.uid, container.ids.gid) if container.ids is not None else None
        await engine.launcher.change_mounts(plan_mount(planned, again=again, owner=owner), root_fd, namespace_fd)


async def _remove(engine: Engine, container: Container, destination: str) -> None:
    if destination not in destinations(container):
        raise NotFound(f"container {container.name} has no mount of yours at {destination}")
    live = engine.live.get(container.id)
    if live is not None:
        _check_etc_files(destination, "unmount")
        change = MountChange(action="remove", destination=destination)
        engine.containers.save(msgspec.structs.replace(container, change=change), durable=True)
        try:
            faults.point("engine.mounts.leaving")
            try:
                await _detach(engine, live, container, destination)
            except Internal:  # the worker was killed: nobody knows before or after what
                if mounted_at(live.pid, destination):
                    raise
        except BaseException:
            engine.containers.save(_settled(engine, container.id))
            raise
    try:
        faults.point("engine.mounts.detached")
    finally:
        engine.containers.save(_without(_settled(engine, container.id), destination), durable=True)
        _let_go(engine, container, destination, live)


def _let_go(engine: Engine, container: Container, destination: str, live: Live | None) -> None:
    gone = tuple(point for point in container.mounts if point.destination == destination)
    image_mounts.remove(engine, container.id, gone)
    if live is not None:
        container_volumes.release(engine, msgspec.structs.replace(container, mounts=gone))


async def _detach(engine: Engine, live: Live, container: Container, destination: str, *, again: bool = False) -> None:
    others = tuple(sorted(destinations(container) - {destination}))
    change = plan_unmount(destination, kept=ENGINES_OWN, others=others, again=again)
    async with _inside(live) as (root_fd, namespace_fd):
        await engine.launcher.change_mounts(change, root_fd, namespace_fd)


@contextlib.asynccontextmanager
async def _inside(live: Live) -> AsyncIterator[tuple[int, int]]:
    found = running_root(live)
    if found is None:
        raise Conflict("the container has just ended")
    try:
        yield found
    finally:
        for descriptor in found:
            os.close(descriptor)


def _check_etc_files(destination: str, what: str) -> None:
    """The engine mounts these over what lies there: which of two is on top would change with the next start."""
    for file in ETC_FILES:
        if file == destination or file.startswith(f"{destination}/"):
            raise Conflict(f"cannot {what} {destination} while the container runs: the engine has {file} mounted there")


async def _restore(engine: Engine, before: Container, destination: str) -> None:
    """Takes a removal back: as it was in the record, and mounted."""
    point = next((point for point in before.mounts if point.destination == destination), None)
    mount = _option(before.host, destination)
    if point is None:
        point = MountPoint(type="tmpfs", source="", destination=destination)
        mount = mount or MountOptions(type="tmpfs", target=destination)
    elif point.type == "image":
        await in_thread(image_mounts.prepare, engine, before.id, point)
    live = engine.live.get(before.id)
    if live is not None:
        only = msgspec.structs.replace(before, mounts=(point,))
        async with container_volumes.mounted(engine, only):
            await _attach(engine, live, before, point, mount, again=True)
        container_volumes.publish_mounted(engine, only)
    now = engine.containers.find(before.id)
    host = msgspec.structs.replace(
        now.host, binds=before.host.binds, mounts=before.host.mounts, tmpfs=before.host.tmpfs
    )
    engine.containers.save(msgspec.structs.replace(now, host=host, mounts=before.mounts), durable=True)


async def _remove_again(engine: Engine, container_id: str, point: MountPoint) -> None:
    await _remove(engine, engine.containers.find(container_id), point.destination)
    if point.anonymous:
        container_volumes.remove_left(engine, container_id, [point.name])


async def take_up(engine: Engine, container_id: str) -> None:
    """After a restart of the engine: finishes the change that was on its way when it was killed."""
    container = engine.containers.find(container_id)
    change = container.change
    if change is None:
        return
    live = engine.live.get(container_id)
    point = next((point for point in container.mounts if point.destination == change.destination), None)
    stays = change.action == "add"
    if live is not None:
        try:
            if change.action == "add" and point is not None:
                only = msgspec.structs.replace(container, mounts=(point,))
                async with container_volumes.mounted(engine, only):
                    option = _option(container.host, change.destination)
                    await _attach(engine, live, container, point, option, again=True)
                container_volumes.publish_mounted(engine, only)
            else:
                await _detach(engine, live, container, change.destination, again=True)
        except TareError:  # it can't be done any more, or it is in use: the record says how it is
            stays = change.action != "add"
    settled = _settled(engine, container_id)
    engine.containers.save(settled if stays else _without(settled, change.destination), durable=True)
    if not stays and point is not None:
        _let_go(engine, container, change.destination, live)


def _settled(engine: Engine, container_id: str) -> Container:
    """A container's record as it is now (it may have ended meanwhile), with no change on its way."""
    return msgspec.structs.replace(engine.containers.find(container_id), change=None)


def _option(host: HostOptions, destination: str) -> MountOptions | None:
    """The `--mount` of a place."""
    return next((one for one in host.mounts or () if _place(one) == destination), None)


def _place(mount: MountOptions) -> str:
    return mount_specs.parse_mount(mount).point.destination


def _with(container: Container, point: MountPoint, mount: MountOptions) -> Container:
    host = msgspec.structs.replace(container.host, mounts=(*(container.host.mounts or ()), mount))
    return msgspec.structs.replace(container, host=host, mounts=(*container.mounts, point))


def _without(container: Container, destination: str) -> Container:
    host = container.host
    host = msgspec.structs.replace(
        host,
        binds=tuple(b for b in host.binds or () if mount_specs.parse_bind(b).point.destination != destination) or None,
        mounts=tuple(mount for mount in host.mounts or () if _place(mount) != destination) or None,
        tmpfs={t: o for t, o in (host.tmpfs or {}).items() if check_destination(t, "tmpfs") != destination} or None,
    )
    points = tuple(point for point in container.mounts if point.destination != destination)
    return msgspec.structs.replace(container, host=host, mounts=points)
