"""Volumes in the trash: the files are renamed aside (their name is free at once), the record moves."""

from __future__ import annotations

import msgspec

from tare import faults
from tare.engine.engine import Engine, in_thread
from tare.engine.trash_store import Trashed
from tare.errors import Conflict, NotFound
from tare.values.ids import new_id
from tare.values.timestamps import now_ns
from tare.volumes.records import ANONYMOUS_LABEL, Volume
from tare.volumes.rules import check_name


def throw(engine: Engine, name: str, users: tuple[str, ...]) -> Trashed:
    """Takes a volume out of the engine's list and into the trash. Raises NotFound, Conflict (containers have it)."""
    entry = Trashed(id=new_id(), record=engine.volumes.find(name), removed_ns=now_ns())
    try:
        engine.volumes.remove(name, users, aside=entry.id, along=lambda tx: engine.trash.insert(tx, entry))
    finally:
        if engine.volumes.get(name) is None:
            engine.trash.remember(entry)  # though its files could not be put aside: they will be
    faults.point("engine.trash.volume")
    return entry


def drop(engine: Engine, entry: Trashed) -> None:
    """Deletes it for good."""
    with engine.database.transaction(durable=False) as tx:
        engine.trash.delete(tx, entry.id)
        if isinstance(entry.record, Volume):
            engine.volumes.begin_drop(tx, entry.record)
    engine.trash.forget(entry.id)
    faults.point("engine.trash.dropped")
    engine.volumes.drop_aside(entry.id)
    engine.spawn(in_thread(engine.volumes.empty_trash), "empty the trash of volumes")


async def restore(engine: Engine, entry: Trashed, volume: Volume, name: str | None) -> Volume:
    """Brings a volume back with its files, options and labels. Raises NotFound, InvalidArgument, Conflict."""
    if name:
        check_name(name)
        labels = {key: value for key, value in (volume.labels or {}).items() if key != ANONYMOUS_LABEL}
        volume = msgspec.structs.replace(volume, name=name, labels=labels or None)
    async with engine.lock(f"volume {volume.name}"):
        if engine.volumes.get(volume.name) is not None:
            raise Conflict(
                f"a volume named {volume.name} exists: remove it first, or restore the other by another name (--name)"
            )
        if not engine.trash.holds(entry.id):
            raise NotFound(f"No such volume in the trash: {volume.name}")
        # First the name, so that a crash between the files' move and the record's finds them by it.
        engine.trash.change(msgspec.structs.replace(entry, record=volume))
        engine.volumes.take_back(entry.id, volume, lambda tx: engine.trash.delete(tx, entry.id))
        engine.trash.forget(entry.id)
        faults.point("engine.trash.restored")
    engine.events.publish("volume", "restore", volume.name, {"driver": volume.driver})
    return volume


async def restore_if_there(engine: Engine, name: str) -> None:
    """For a container that comes back: the volume of that name which was removed last, if there is one."""
    entry = engine.trash.newest_volume(name)
    if entry is not None and isinstance(entry.record, Volume):
        await restore(engine, entry, entry.record, None)
