"""trash: what was removed waits for a while and can be had back: containers, volumes, images.

The trash is bounded by age, bytes, number, and by what must stay free on the disk; the oldest goes first. What was made
with `--rm` doesn't wait, nor what its remover wants to be gone. How each kind is thrown, dropped and had back stands in
trash_containers.py, trash_volumes.py and trash_images.py; this never touches a file itself.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from tare.engine import trash_containers, trash_images, trash_volumes
from tare.engine.engine import Engine, in_thread
from tare.engine.records import Container
from tare.engine.trash_store import Trashed
from tare.images.records import RemovedImage
from tare.values.timestamps import now_ns
from tare.volumes.records import Volume

ENTRIES_MAX = 500
LOOK_S = 30.0
"""How often the disk's free space is looked at while something waits."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. taken: names that it doesn't have again, since another thing has them."""

    kind: str
    id: str
    name: str
    taken: tuple[str, ...] = ()


def missing_bytes(engine: Engine) -> int:
    """How many bytes would have to be freed for the disk to have as many free as the settings want."""
    status = os.statvfs(engine.settings.data_root)
    wanted = engine.settings.trash_free_bytes or int(
        engine.settings.trash_free_share * status.f_blocks * status.f_frsize
    )
    return max(0, wanted - status.f_bavail * status.f_frsize)


def is_on(engine: Engine) -> bool:
    """Whether what is removed now can wait: there is a trash, and room for it. If there isn't, room is made."""
    settings = engine.settings
    if settings.trash_keep_s <= 0 or settings.trash_max_bytes <= 0:
        return False
    if missing_bytes(engine):
        if len(engine.trash):
            engine.spawn(_make_room(engine), "make room on the disk")
        return False
    return True


async def _make_room(engine: Engine) -> None:
    settle(engine)


def is_kept(engine: Engine, container: Container) -> bool:
    """Whether a container that is being removed goes to the trash."""
    return not container.host.auto_remove and is_on(engine)


def thrown(engine: Engine, entry: Trashed) -> None:
    """Something has come into the trash: finds its size, and sees to the bounds."""
    engine.trash.remember(entry)
    engine.spawn(_settle_new(engine, entry), f"trash {entry.id[:12]}")


async def _settle_new(engine: Engine, entry: Trashed) -> None:
    await _find_size(engine, entry)
    settle(engine)


async def _find_size(engine: Engine, entry: Trashed) -> None:
    size_bytes = await in_thread(_size, engine, entry)
    current = engine.trash.get(entry.id)
    if current is not None and current.size_bytes != size_bytes:
        engine.trash.change(msgspec.structs.replace(current, size_bytes=size_bytes))


def _size(engine: Engine, entry: Trashed) -> int:
    """Bytes of the files that are its own; what layers it holds is counted anew each time."""
    if isinstance(entry.record, Container):
        return trash_containers.size(engine, entry.id)
    return engine.volumes.usage_aside(entry.id) if isinstance(entry.record, Volume) else 0


async def settle_all(engine: Engine) -> None:
    """After a start: finds the sizes that an earlier engine didn't come to, then `settle`."""
    for entry in engine.trash:
        if not entry.size_bytes:
            await _find_size(engine, entry)
    settle(engine)


def weights(engine: Engine) -> dict[str, int]:
    """What each thing in the trash holds on the disk, by id; layers count for the newest of those that have them.

    So the oldest ones' figures are what dropping them frees. Layers that something outside uses count for nobody.
    """
    entries = list(engine.trash)
    found = {entry.id: entry.size_bytes for entry in entries}
    if not any(isinstance(entry.record, RemovedImage) for entry in entries):
        return found  # the usual case: layers belong to images, which are there
    waiting: dict[str, frozenset[str]] = {}
    counted: set[str] = set()
    for holder, diff_ids in engine.layers.holders():
        if engine.trash.holds_layers(holder):
            waiting[holder] = diff_ids
        else:
            counted |= diff_ids
    sizes = {layer.diff_id: layer.size_bytes for layer in engine.layers.all()}
    for entry in reversed(entries):
        own = waiting.get(entry.layer_holder, frozenset()) - counted
        found[entry.id] += sum(sizes.get(diff_id, 0) for diff_id in own)
        counted |= own
    return found


def settle(engine: Engine) -> None:
    """Empties what is too old, or too much; then sees to it that this is done again in time."""
    settings = engine.settings
    oldest_ns = now_ns() - settings.trash_keep_s * 10**9
    weight = weights(engine)
    for entry in engine.trash:
        if weight[entry.id] > settings.trash_max_bytes:  # it goes alone, not after all that is older
            weight.pop(entry.id)
            drop(engine, entry)
    too_much = max(sum(weight.values()) - settings.trash_max_bytes, missing_bytes(engine))
    count = len(engine.trash)
    for entry in engine.trash:
        if entry.removed_ns > oldest_ns and too_much <= 0 and count <= ENTRIES_MAX:
            break
        too_much -= weight[entry.id]
        count -= 1
        drop(engine, entry)
    _wake_later(engine)


def _wake_later(engine: Engine) -> None:
    if engine.trash_timer is not None:
        engine.trash_timer.cancel()
        engine.trash_timer = None
    first = next(iter(engine.trash), None)
    if first is None or engine.shutting_down:
        return
    wait_s = max(0.0, (first.removed_ns - now_ns()) / 10**9 + engine.settings.trash_keep_s) + 1
    engine.trash_timer = asyncio.get_running_loop().call_later(min(wait_s, LOOK_S), _look, engine, first)


def _look(engine: Engine, first: Trashed) -> None:
    """Settles if the first is too old or the disk too full; else only looks again later."""
    is_old = first.removed_ns <= now_ns() - engine.settings.trash_keep_s * 10**9
    if is_old or missing_bytes(engine):
        settle(engine)
    else:
        _wake_later(engine)


def drop(engine: Engine, entry: Trashed) -> None:
    """Deletes what waits, for good. Safe to repeat after a crash at any point."""
    if isinstance(entry.record, Container):
        trash_containers.drop(engine, entry)
    elif isinstance(entry.record, Volume):
        trash_volumes.drop(engine, entry)
    else:
        trash_images.drop(engine, entry)


async def restore_from_trash(engine: Engine, ref: str, *, name: str | None, kind: str = "") -> Restored:
    """Brings a removed thing back under its name, or `name`.

    A container whose name is taken gets one with a number behind; of an image's names those that are free.
    Raises NotFound, InvalidArgument, Conflict (the name is taken; an image: all of its names).
    """
    entry = engine.trash.find(ref, kind)
    record = entry.record
    if isinstance(record, Container):
        container = await trash_containers.restore(engine, entry, record, name)
        return Restored(kind="container", id=container.id, name=container.name)
    if isinstance(record, Volume):
        volume = await trash_volumes.restore(engine, entry, record, name)
        return Restored(kind="volume", id=volume.name, name=volume.name)
    image, taken = await trash_images.restore(engine, entry, record, name)
    called = next(iter([*image.repo_tags, *image.repo_digests]), image.id)
    return Restored(kind="image", id=image.id, name=called, taken=taken)


async def empty_trash(engine: Engine, refs: tuple[str, ...], kind: str = "") -> tuple[list[str], int]:
    """Deletes what waits of these things, or all (of a kind): their ids and the bytes that this frees.

    Raises NotFound, InvalidArgument, Conflict.
    """
    entries = [engine.trash.find(ref, kind) for ref in refs] or [e for e in engine.trash if kind in ("", e.kind)]
    before = sum(weights(engine).values())
    for entry in entries:
        drop(engine, entry)
    return [entry.id for entry in entries], max(0, before - sum(weights(engine).values()))
