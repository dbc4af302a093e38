"""trash: removed containers wait for a while and can be had back, with record, upper layer and log.

The trash is bounded by age, bytes and number; the oldest goes first. What was made with `--rm`, or is pruned, or whose
image is removed, does not wait: who does that wants the space.
"""

from __future__ import annotations

import asyncio

import msgspec

from tare import faults
from tare.engine.engine import Engine, in_thread
from tare.engine.records import Container
from tare.engine.sweep import discard_directory
from tare.engine.trash_store import Trashed
from tare.errors import NotFound
from tare.storage.usage import usage
from tare.values.names import check_container_name
from tare.values.timestamps import now_ns

ENTRIES_MAX = 500


def is_kept(engine: Engine, container: Container) -> bool:
    """Whether a container that is being removed goes to the trash."""
    return engine.settings.trash_keep_s > 0 and engine.settings.trash_max_bytes > 0 and not container.host.auto_remove


def throw(engine: Engine, container: Container) -> None:
    """Takes a container out of the engine's list and into the trash. It doesn't run, and holds nothing but files."""
    status = "created" if not container.state.started_ns else "exited"
    state = msgspec.structs.replace(
        container.state, status=status, pid=0, stopped_by_user=True, removes_volumes=False, restart_count=0
    )
    entry = Trashed(container=msgspec.structs.replace(container, state=state), removed_ns=now_ns())
    engine.containers.remove(container.id, along=lambda tx: engine.trash.insert(tx, entry))
    engine.trash.remember(entry)
    faults.point("engine.trash.thrown")
    engine.spawn(_settle_new(engine, container.id), f"trash {container.id[:12]}")


async def _settle_new(engine: Engine, container_id: str) -> None:
    engine.trash.set_size(container_id, await in_thread(_size, engine, container_id))
    settle(engine)


def _size(engine: Engine, container_id: str) -> int:
    total = 0
    for directory in (engine.snapshots.upper(container_id), engine.container_dir(container_id)):
        try:
            total += usage(directory)
        except FileNotFoundError:
            continue  # restored, started or emptied meanwhile
    return total


async def settle_all(engine: Engine) -> None:
    """After a start: finds the sizes that an earlier engine didn't come to, then `settle`."""
    for entry in engine.trash:
        if not entry.size_bytes:
            engine.trash.set_size(entry.container.id, await in_thread(_size, engine, entry.container.id))
    settle(engine)


def settle(engine: Engine) -> None:
    """Empties what is too old, or too much; then sees to it that this is done again in time."""
    settings = engine.settings
    oldest_ns = now_ns() - settings.trash_keep_s * 10**9
    total = sum(entry.size_bytes for entry in engine.trash)
    count = len(engine.trash)
    for entry in engine.trash:
        if entry.removed_ns > oldest_ns and total <= settings.trash_max_bytes and count <= ENTRIES_MAX:
            break
        total -= entry.size_bytes
        count -= 1
        drop(engine, entry.container.id)
    _wake_later(engine)


def _wake_later(engine: Engine) -> None:
    if engine.trash_timer is not None:
        engine.trash_timer.cancel()
        engine.trash_timer = None
    first = next(iter(engine.trash), None)
    if first is None or engine.shutting_down:
        return
    wait_s = max(0.0, (first.removed_ns - now_ns()) / 10**9 + engine.settings.trash_keep_s) + 1
    engine.trash_timer = asyncio.get_running_loop().call_later(min(wait_s, 86400.0), settle, engine)


def drop(engine: Engine, container_id: str) -> None:
    """Deletes what waits of one container, for good. Safe to repeat after a crash at any point."""
    engine.trash.drop(container_id)
    faults.point("engine.trash.dropped")
    engine.snapshots.remove(container_id)
    discard_directory(engine, engine.container_dir(container_id))
    engine.spawn(in_thread(engine.snapshots.empty_trash), "empty the trash of snapshots")


def drop_of_images(engine: Engine, image_ids: set[str]) -> bool:
    """Deletes containers of images that were removed; whether there were any."""
    gone = [entry.container.id for entry in engine.trash if entry.container.image_id in image_ids]
    for container_id in gone:
        drop(engine, container_id)
    return bool(gone)


async def restore_from_trash(engine: Engine, ref: str, name: str | None) -> Container:
    """Brings a removed container back under its name (or, where that is taken, one with a number behind), or `name`.

    Raises NotFound, InvalidArgument, Conflict (the name asked for is taken).
    """
    entry = engine.trash.find(ref)
    container = entry.container
    if name is not None:
        name = check_container_name(name)
        engine.containers.check_name_free(name)
    async with engine.lock(container.id):
        if not engine.trash.holds(container.id):
            raise NotFound(f"No such container in the trash: {ref}")
        container = msgspec.structs.replace(container, name=name or _free_name(engine, container.name))
        engine.containers.add(container, along=lambda tx: engine.trash.delete(tx, container.id))
        engine.trash.forget(container.id)
        faults.point("engine.trash.restored")
    engine.events.container(container, "restore")
    return container


def _free_name(engine: Engine, name: str) -> str:
    candidate, number = name, 1
    while not engine.containers.name_is_free(candidate):
        number += 1
        candidate = f"{name}-{number}"
    return candidate


async def empty_trash(engine: Engine, refs: tuple[str, ...]) -> tuple[list[str], int]:
    """Deletes what waits of these containers, or of all: their ids and the bytes that this frees. Raises NotFound."""
    entries = [engine.trash.find(ref) for ref in refs] if refs else list(engine.trash)
    for entry in entries:
        drop(engine, entry.container.id)
    return [entry.container.id for entry in entries], sum(entry.size_bytes for entry in entries)
