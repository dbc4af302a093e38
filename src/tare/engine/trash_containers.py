"""Containers in the trash: their snapshots and directories stay where they are; only the record moves."""

from __future__ import annotations

import msgspec

from tare import faults
from tare.engine import image_mounts, trash_volumes
from tare.engine.engine import Engine, in_thread
from tare.engine.records import Container
from tare.engine.sweep import discard_directory
from tare.engine.trash_store import Trashed
from tare.errors import NotFound
from tare.storage.database import Transaction
from tare.storage.usage import usage
from tare.values.names import check_container_name
from tare.values.timestamps import now_ns


def throw(engine: Engine, container: Container) -> Trashed:
    """Takes a container out of the engine's list and into the trash. It doesn't run, and holds nothing but files."""
    status = "created" if not container.state.started_ns else "exited"
    state = msgspec.structs.replace(
        container.state, status=status, pid=0, stopped_by_user=True, removes_volumes=False, restart_count=0
    )
    record = msgspec.structs.replace(container, state=state, leaving="")
    entry = Trashed(id=container.id, record=record, removed_ns=now_ns())
    image = engine.images.find(container.head_id) if container.head_id else None
    likely = [*(image.diff_ids[::-1] if image else ()), *container.layers[::-1]]

    def along(tx: Transaction) -> None:
        engine.trash.insert(tx, entry)
        engine.snapshots.park(tx, container.id, likely)

    engine.containers.remove(container.id, along=along)
    engine.trash.remember(entry)
    faults.point("engine.trash.thrown")
    return entry


def size(engine: Engine, container_id: str) -> int:
    """Bytes of its upper layer, log and other files. Slow, for a thread."""
    total = 0
    for directory in (engine.snapshots.upper(container_id), engine.container_dir(container_id)):
        try:
            total += usage(directory)
        except FileNotFoundError:
            continue  # restored, started or emptied meanwhile
    return total


def drop(engine: Engine, entry: Trashed) -> None:
    """Deletes it for good."""
    with engine.database.transaction(durable=False) as tx:
        engine.trash.delete(tx, entry.id)
    engine.trash.forget(entry.id)
    faults.point("engine.trash.dropped")
    engine.snapshots.remove(entry.id)
    if isinstance(entry.record, Container):
        image_mounts.remove(engine, entry.id, entry.record.mounts)
    discard_directory(engine, engine.container_dir(entry.id))
    engine.spawn(_give_back(engine), "empty the trash of snapshots")


async def _give_back(engine: Engine) -> None:
    await in_thread(engine.snapshots.empty_trash)
    if await in_thread(engine.layers.collect):  # its image went before it
        await in_thread(engine.layers.empty_trash)
    await in_thread(engine.layers.tidy)


def drop_of_images(engine: Engine, image_ids: set[str]) -> None:
    """Deletes the containers of images that went for good: who removes these so wants their layers' space."""
    for entry in engine.trash:
        if isinstance(entry.record, Container) and entry.record.image_id in image_ids:
            drop(engine, entry)


async def restore(engine: Engine, entry: Trashed, container: Container, name: str | None) -> Container:
    """Brings a container back, with those of its volumes that wait here, too. See `trash.restore_from_trash`."""
    if name is not None:
        name = check_container_name(name)
        engine.containers.check_name_free(name)
    async with engine.lock(container.id):
        for point in container.mounts:
            if point.type == "volume" and engine.volumes.get(point.name) is None and engine.trash.holds(container.id):
                await trash_volumes.restore_if_there(engine, point.name)
        if not engine.trash.holds(container.id):  # asked last: what comes in meanwhile may push the oldest out
            raise NotFound(f"No such container in the trash: {container.name}")
        container = msgspec.structs.replace(container, name=name or _free_name(engine, container.name))

        def along(tx: Transaction) -> None:
            engine.trash.delete(tx, container.id)
            engine.snapshots.unpark(tx, container.id)

        engine.containers.add(container, along=along)
        engine.trash.forget(container.id)
        faults.point("engine.trash.restored")
        await in_thread(engine.snapshots.unpack, container.id)
    engine.events.container(container, "restore")
    return container


def _free_name(engine: Engine, name: str) -> str:
    candidate, number = name, 1
    while not engine.containers.name_is_free(candidate):
        number += 1
        candidate = f"{name}-{number}"
    return candidate
