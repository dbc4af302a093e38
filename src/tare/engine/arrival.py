"""move, at its end: a container that comes in parts, and is there once all of it is.

    <data root>/arriving/<id>/moved.json          the description
                              volumes.json        the volumes that were made for it
                              parts/<part>/tree   a part that is whole

    begin → the parts that aren't here yet → finish (one transaction makes it a container)
      → start, once the source is gone

What has come stays for a day, over restarts too, so that a cut costs the part that was on its way.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tare import faults
from tare.engine import check, start, trash
from tare.engine.container_networks import canonical, wanted_endpoint
from tare.engine.disk_limit import disk_limit
from tare.engine.egress import check_egress
from tare.engine.engine import Engine, in_own_thread, in_thread
from tare.engine.log_options import log_path
from tare.engine.network_link import with_states
from tare.engine.portable import LOG, UPPER, VOLUME, Portable, format_portable, parse_portable, user_networks
from tare.engine.records import Container, ContainerState, MountPoint
from tare.engine.sweep import discard_directory
from tare.engine.thread_stream import BodyReader
from tare.errors import Conflict, InvalidArgument, NotFound
from tare.storage.carry import unpack
from tare.storage.durable import sync_directory, write_file
from tare.values.names import check_container_name

KEPT_S = 24 * 3600.0


class Arriving(msgspec.Struct, frozen=True, kw_only=True):
    """How far a container has come. wanted: parts that are still to be sent. whole: it is a container here."""

    moved: Portable
    wanted: tuple[str, ...]
    whole: bool


def _directory(engine: Engine, container_id: str) -> Path:
    return engine.settings.data_root / "arriving" / container_id


def _part(engine: Engine, container_id: str, name: str) -> Path:
    return _directory(engine, container_id) / "parts" / name.replace("/", ":")


def find(engine: Engine, ref: str) -> Arriving:
    """An arrival by the container's id or name. Raises NotFound."""
    forget_old(engine)
    for path in sorted((engine.settings.data_root / "arriving").glob("*/moved.json")):
        moved = parse_portable(path.read_bytes())
        if ref in (moved.id, moved.name):
            whole = engine.containers.get(moved.id) is not None
            return Arriving(moved=moved, wanted=() if whole else _wanted(engine, moved), whole=whole)
    raise NotFound(f"no container {ref[:100]} is arriving")


def _wanted(engine: Engine, moved: Portable) -> tuple[str, ...]:
    made = {VOLUME + volume for volume in _made_volumes(engine, moved.id)}
    return tuple(
        name for name in moved.parts if not (_part(engine, moved.id, name) / "tree").exists() and name not in made
    )


async def begin(engine: Engine, moved: Portable) -> Arriving:
    """Takes a description. Repeated, it tells what is still missing.

    Raises InvalidArgument, Unsupported, Conflict (name or volume taken), NotFound (a network).
    """
    forget_old(engine)
    async with engine.lock(moved.id):
        directory = _directory(engine, moved.id)
        if engine.containers.get(moved.id) is not None:
            try:
                return find(engine, moved.id)
            except NotFound:
                raise Conflict(f"container {moved.id} is here already") from None
        check_arrival(engine, moved)
        try:
            known = parse_portable((directory / "moved.json").read_bytes())
        except FileNotFoundError:
            known = None
        if known is not None and known.token != moved.token:
            await in_thread(_forget, engine, moved.id)
        faults.point("engine.arrive.begin")
        (directory / "parts").mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.parent.chmod(0o700)
        write_file(directory / "moved.json", format_portable(moved), point="engine.arrive.description")
        return Arriving(moved=moved, wanted=_wanted(engine, moved), whole=False)


def check_arrival(engine: Engine, moved: Portable) -> None:
    """What create would refuse, and what is in the way. Raises as `begin` does."""
    engine.containers.check_name_free(check_container_name(moved.name))
    check.check_config(moved.config)
    check.check_host(moved.host)
    check_egress(moved.host)
    if disk_limit(moved.host):
        engine.snapshots.quotas.check()
    for network in moved.networks:
        wanted_endpoint(engine, network.name, network.wish)
    known = {record.name for record in engine.network.networks()}
    for name in user_networks(moved):
        if name not in known:
            raise NotFound(f"network {name} not found")
    made = _made_volumes(engine, moved.id)
    for volume in moved.volumes:
        if volume.carried and volume.name not in made and engine.volumes.get(volume.name) is not None:
            raise Conflict(
                f"volume {volume.name} is here already: remove it, or use --no-volumes to take the one that is here"
            )


async def receive_part(engine: Engine, container_id: str, name: str, body: AsyncIterator[bytes]) -> None:
    """One of the streams. It counts once it is whole, and on the disk. Raises NotFound, InvalidArgument."""
    arriving = find(engine, container_id)
    if name not in arriving.moved.parts:
        raise InvalidArgument(f"no part {name[:100]!r} belongs to container {container_id}")
    place = _part(engine, arriving.moved.id, name)
    async with engine.lock(f"arriving {arriving.moved.id} {name}"):
        aside = place.with_name(f".{place.name}")
        await in_thread(shutil.rmtree, aside, True)
        for directory in (aside, aside / "tree", aside / "shadow"):
            directory.mkdir(mode=0o700)
        reader = BodyReader(body, asyncio.get_running_loop())
        try:
            await in_own_thread(unpack, reader, aside / "tree", aside / "shadow", layered=name == UPPER)
            await in_thread(shutil.rmtree, place, True)
            faults.point("engine.arrive.part")
            aside.rename(place)
            sync_directory(place.parent)
        except BaseException:
            await asyncio.shield(in_thread(shutil.rmtree, aside, True))
            raise


async def finish(engine: Engine, container_id: str) -> Container:
    """Makes a container of what has come, all or nothing; of one that is whole it does nothing.

    Raises NotFound, Conflict (parts, or the image, are missing).
    """
    work = _finish(engine, find(engine, container_id).moved)
    return await engine.uninterrupted(work, f"arrive {container_id[:12]}")


async def _finish(engine: Engine, moved: Portable) -> Container:
    async with engine.lock(moved.id):
        present = engine.containers.get(moved.id)
        if present is not None:
            return present
        check_arrival(engine, moved)
        missing = _wanted(engine, moved)
        if missing:
            raise Conflict(f"container {moved.id} is not whole yet: {', '.join(missing)} did not come")
        image = engine.images.find(moved.image_id)
        if image is None or image.diff_ids != moved.layers:
            raise NotFound(f"No such image: {moved.image_id}")
        if engine.trash.holds(moved.id):  # it was here before
            await trash.empty_trash(engine, (moved.id,))
        with engine.made(moved.id), ExitStack() as undo, engine.volumes.held([volume.name for volume in moved.volumes]):
            _place_volumes(engine, moved)
            directory = engine.container_dir(moved.id)
            shutil.rmtree(directory, ignore_errors=True)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            directory.mkdir(mode=0o710)
            _place_log(engine, moved)
            faults.point("engine.arrive.log")
            upper = _part(engine, moved.id, UPPER) / "tree"
            undo.callback(engine.snapshots.give_back, moved.id, upper)
            size_bytes = disk_limit(moved.host)
            await in_thread(engine.snapshots.adopt, moved.id, moved.layers, upper, size_bytes=size_bytes)
            faults.point("engine.arrive.snapshot")
            await in_thread(_fill_volumes, engine, moved)
            container = _record(engine, moved)
            engine.containers.add(container)
            undo.pop_all()
        faults.point("engine.arrive.stored")
        engine.volumes.settle(moved.id)
    engine.events.container(container, "arrive")
    return container


def _made_volumes(engine: Engine, container_id: str) -> tuple[str, ...]:
    try:
        document = (_directory(engine, container_id) / "volumes.json").read_bytes()
    except FileNotFoundError:
        return ()
    return msgspec.json.decode(document, type=tuple[str, ...])


def _place_volumes(engine: Engine, moved: Portable) -> None:
    """The volumes, with what came for them. Which are made here is written down before: a repeat takes them up."""
    made = _made_volumes(engine, moved.id)
    new = [volume for volume in moved.volumes if volume.name in made or engine.volumes.get(volume.name) is None]
    names = msgspec.json.encode([volume.name for volume in new if volume.carried])
    write_file(_directory(engine, moved.id) / "volumes.json", names, point="engine.arrive.volumes")
    for volume in new:
        engine.volumes.create(volume.name, labels=volume.labels, pending=moved.id)
        faults.point("engine.arrive.volume")
        tree = _part(engine, moved.id, VOLUME + volume.name) / "tree"
        if volume.carried and tree.exists():
            mountpoint = engine.volumes.mountpoint(volume.name)
            tree.rename(mountpoint)  # in place of the empty one
            sync_directory(mountpoint.parent)
            faults.point("engine.arrive.volume-filled")


def _fill_volumes(engine: Engine, moved: Portable) -> None:
    """Volumes that came without files get those that the image has, as at create."""
    empty = {volume.name for volume in moved.volumes if not volume.carried}
    with engine.snapshots.stack(moved.id) as stack:
        for point in moved.mounts:
            if point.type == "volume" and point.name in empty and not point.no_copy and not point.subpath:
                engine.volumes.fill(point.name, stack, point.destination)


def _place_log(engine: Engine, moved: Portable) -> None:
    tree = _part(engine, moved.id, LOG) / "tree"
    driver = moved.host.log_config.type if moved.host.log_config else "json-file"
    target = log_path(driver, str(engine.container_dir(moved.id)), moved.id)
    if not target or not moved.log_name:
        return
    for entry in os.scandir(tree):
        if entry.name.startswith(moved.log_name) and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            os.link(entry.path, target + entry.name[len(moved.log_name) :], follow_symlinks=False)


def _record(engine: Engine, moved: Portable) -> Container:
    directory = str(engine.container_dir(moved.id))
    driver = moved.host.log_config.type if moved.host.log_config else "json-file"
    kept = msgspec.structs.replace(moved.state, status="created", pid=0, restart_count=0, removes_volumes=False)
    if moved.state.started_ns and not moved.host.auto_remove:  # else it would go at once, for it has ended
        kept = msgspec.structs.replace(kept, status="exited", stopped_by_user=True)
    container = Container(
        id=moved.id,
        name=moved.name,
        created_ns=moved.created_ns,
        image_id=moved.image_id,
        layers=moved.layers,
        path=moved.path,
        args=moved.args,
        config=moved.config,
        host=moved.host,
        state=kept if moved.state.started_ns else ContainerState(),
        mounts=tuple(_mount(engine, point) for point in moved.mounts),
        stop_signal=moved.stop_signal,
        log_path=log_path(driver, directory, moved.id),
        directory=directory,
        head_id=moved.head_id if moved.head_id and engine.images.find(moved.head_id) else "",
    )
    states = []
    for network in moved.networks:
        state = wanted_endpoint(engine, canonical(engine, network.name), network.wish)
        states.append(msgspec.structs.replace(state, aliases=network.aliases))
    return with_states(container, states)


def _mount(engine: Engine, point: MountPoint) -> MountPoint:
    if point.type != "volume":
        return point
    volume = engine.volumes.find(point.name)
    source = str(engine.volumes.mountpoint(point.name))
    return msgspec.structs.replace(point, source=source, driver=volume.driver, local=volume.mount)


async def start_arrived(engine: Engine, ref: str) -> tuple[Container, bool]:
    """Once the source is gone: starts it, if it ran there. The container, and whether it runs. Raises NotFound."""
    arriving = find(engine, ref)
    if not arriving.whole:
        raise Conflict(f"container {arriving.moved.id} is not whole yet")
    container_id = arriving.moved.id
    if arriving.moved.ran and not engine.containers.find(container_id).state.running:
        await start.start_container(engine, container_id)
    faults.point("engine.arrive.started")
    _forget(engine, container_id)
    container = engine.containers.find(container_id)
    return container, container.state.running


def give_up(engine: Engine, ref: str) -> None:
    """Forgets what has come. A container that is whole stays; so do volumes that have been made. Raises NotFound."""
    _forget(engine, find(engine, ref).moved.id)


def _forget(engine: Engine, container_id: str) -> None:
    discard_directory(engine, _directory(engine, container_id))


def remove_strangers(engine: Engine) -> None:
    """At start: what an earlier engine had only begun, or not deleted yet."""
    arriving = engine.settings.data_root / "arriving"
    for path in arriving.iterdir() if arriving.exists() else ():
        if not (path / "moved.json").exists():
            shutil.rmtree(path, ignore_errors=True)


def forget_old(engine: Engine) -> None:
    """What has come in part and was given up: it stays for a day."""
    oldest = time.time() - KEPT_S
    for path in (engine.settings.data_root / "arriving").glob("*/moved.json"):
        try:
            if path.stat().st_mtime < oldest:
                _forget(engine, path.parent.name)
        except FileNotFoundError:
            continue
