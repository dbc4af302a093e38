"""Images in the trash: config, manifest and names are in the record, a layer root of its own keeps the layers."""

from __future__ import annotations

from tare import faults
from tare.engine.engine import Engine, in_thread
from tare.engine.trash_store import LAYER_ROOT, Trashed
from tare.errors import Conflict, InvalidArgument
from tare.images.records import Image, RemovedImage
from tare.storage.database import Transaction
from tare.values.reference import Reference, parse_reference
from tare.values.timestamps import now_ns


class Thrower:
    """Takes images over in the transactions that forget them; `entries` are to be told to the trash afterwards.

    Called in a thread.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.entries: list[Trashed] = []

    def keep(self, tx: Transaction, removed: RemovedImage) -> None:
        """See `tare.images.records.Keep`."""
        entry = Trashed(id=removed.id.removeprefix("sha256:"), record=removed, removed_ns=now_ns())
        self._engine.trash.insert(tx, entry)
        self._engine.layers.set_root(tx, LAYER_ROOT + entry.id, removed.diff_ids)
        faults.point("engine.trash.image")
        self.entries.append(entry)


def drop(engine: Engine, entry: Trashed) -> None:
    """Deletes it for good."""
    with engine.database.transaction(durable=False) as tx:
        engine.trash.delete(tx, entry.id)
        engine.layers.drop_root(tx, LAYER_ROOT + entry.id)
    engine.trash.forget(entry.id)
    faults.point("engine.trash.dropped")
    engine.spawn(_give_back(engine), "empty the trash of layers")


async def finish_removal(engine: Engine) -> None:
    """Takes away what a removal of images left that failed half-way: documents and layers that nothing holds."""
    await in_thread(engine.images.repair)
    await _give_back(engine)


async def _give_back(engine: Engine) -> None:
    await in_thread(engine.layers.collect)
    await in_thread(engine.layers.empty_trash)
    await in_thread(engine.layers.tidy)


async def restore(
    engine: Engine, entry: Trashed, removed: RemovedImage, name: str | None
) -> tuple[Image, tuple[str, ...]]:
    """Brings an image back with the names that are free, or with `name`; also says which weren't.

    Raises InvalidArgument, Conflict (the name asked for, or every name that it had, is another image's).
    """
    image, taken = await in_thread(_restore, engine, entry, removed, name)
    engine.trash.forget(entry.id)
    called = next(iter([*image.repo_tags, *image.repo_digests]), image.id)
    engine.events.publish("image", "restore", image.id, {"name": called, **image.config.labels})
    return image, taken


def _restore(engine: Engine, entry: Trashed, removed: RemovedImage, name: str | None) -> tuple[Image, tuple[str, ...]]:
    def forget(tx: Transaction) -> None:
        engine.trash.delete(tx, entry.id)
        engine.layers.drop_root(tx, LAYER_ROOT + entry.id)

    with engine.images.lock:
        free, taken = _names(engine, removed, name)
        image = engine.images.record_document(
            removed.document,
            why="restore",
            manifest=removed.manifest,
            parent_id=removed.parent_id,
            previous_id=removed.previous_id,
            references=free,
            along=forget,
        )
        faults.point("engine.trash.restored")
    return image, taken


def _names(engine: Engine, removed: RemovedImage, name: str | None) -> tuple[list[Reference], tuple[str, ...]]:
    if name and parse_reference(name).digest is not None:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    wanted = [parse_reference(text).with_default_tag() for text in ([name] if name else removed.names)]
    holders = {reference: engine.images.referred(reference) for reference in wanted}
    taken = tuple(ref.familiar for ref, holder in holders.items() if holder not in (None, removed.id))
    free = [reference for reference, holder in holders.items() if holder in (None, removed.id)]
    if taken and not free:
        raise Conflict(
            f"another image is named {', '.join(taken)}: untag it first, or restore this one by another name (--name)"
        )
    return free, taken
