"""Images: import, list, inspect, history, tag, remove, prune: the images room's verbs, with events and uses."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator

import msgspec

from tare.engine import trash, trash_containers, trash_images, unfinished
from tare.engine.commit import image_reference
from tare.engine.engine import Engine, in_own_thread, in_thread
from tare.engine.records import PruneReport
from tare.engine.sweep import empty_trash_soon
from tare.engine.thread_stream import BodyReader
from tare.errors import Conflict, InvalidArgument, NotFound
from tare.images import history as image_history_verb
from tare.images import import_image as image_import
from tare.images import listing
from tare.images import prune as image_prune
from tare.images import remove as image_remove
from tare.images import resolve as image_resolve
from tare.images import tag as image_tag
from tare.images.documents import for_platform
from tare.images.records import HistoryEntry, Image, Platform, Removed, Use
from tare.storage.decompress import Readable
from tare.values.filters import Filters
from tare.values.reference import parse_reference


class ImageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the image list. containers: how many use it. shared_bytes: None unless asked for."""

    image: Image
    containers: int
    shared_bytes: int | None = None


def resolve_image(engine: Engine, ref: str) -> Image:
    """The image that a user means. Raises NotFound, InvalidArgument with Docker's texts."""
    return image_resolve.resolve(engine.images, ref)


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an archive becomes an image. created_ns: what the image says of its age, for the same bytes each time."""

    repository: str = ""
    tag: str = ""
    changes: tuple[str, ...] = ()
    message: str = ""
    platform: str | None = None
    created_ns: int | None = None


async def import_image(engine: Engine, body: AsyncIterator[bytes], options: ImportOptions) -> str:
    """Makes an image of a tar (plain or compressed) of a root file system; returns its id.

    Raises InvalidArgument for a wrong name, change or archive.
    """
    reader = BodyReader(body, asyncio.get_running_loop())
    return (await import_stream(engine, reader, options, "Imported from -")).id


async def import_stream(engine: Engine, stream: Readable, options: ImportOptions, message: str) -> Image:
    """The same of a stream for a thread. message: unless the options have one."""
    reference = image_reference(options.repository, options.tag)
    image = await in_own_thread(
        image_import.import_image,
        engine.images,
        stream,
        reference=reference,
        changes=options.changes,
        message=options.message or message,
        platform=image_import.parse_platform(options.platform or ""),
        created_ns=options.created_ns,
    )
    name = reference.familiar if reference else image.id
    if reference is not None:
        engine.events.publish("image", "tag", image.id, {**image.config.labels, "name": name})
    engine.events.publish("image", "import", image.id, {"name": name})
    return image


async def list_images(
    engine: Engine, *, all: bool, filters: Filters, shared_size: bool, digests: bool
) -> list[ImageSummary]:
    """Images, newest first. Raises InvalidArgument for a wrong filter."""
    found = await in_thread(listing.list_images, engine.images, filters, all_images=all)
    used = Counter(container.image_id for container in engine.containers)
    shared = await in_thread(_shared_bytes, engine) if shared_size else {}
    return [
        ImageSummary(
            image=image,
            containers=used[image.id],
            shared_bytes=sum(shared.get(diff_id, 0) for diff_id in image.diff_ids) if shared_size else None,
        )
        for image in found
    ]


def _shared_bytes(engine: Engine) -> dict[str, int]:
    """The size of each layer that more than one image has."""
    count = Counter(diff_id for image in engine.images.all() for diff_id in set(image.diff_ids))
    return {layer.diff_id: layer.size_bytes for layer in engine.layers.all() if count[layer.diff_id] > 1}


async def inspect_image(engine: Engine, ref: str, platform: Platform | None = None) -> Image:
    """An image, or of its index the one for a platform. Raises NotFound, InvalidArgument."""
    image = resolve_image(engine, ref)
    return for_platform(engine.images, image, platform, ref) if platform is not None else image


async def image_history(engine: Engine, ref: str, platform: Platform | None = None) -> list[HistoryEntry]:
    """How an image came to be, newest step first. Raises NotFound, InvalidArgument."""
    image = await inspect_image(engine, ref, platform)
    return await in_thread(image_history_verb.history, engine.images, image)


async def tag_image(engine: Engine, ref: str, repository: str, tag: str) -> None:
    """Gives an image one more name. Raises NotFound, InvalidArgument with Docker's texts."""
    resolve_image(engine, ref)
    if not repository:
        raise InvalidArgument("invalid reference format")
    reference = parse_reference(f"{repository}:{tag}" if tag else repository)
    if reference.digest is not None:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    reference = reference.with_default_tag()
    image = await in_thread(image_tag.tag_name, engine.images, ref, reference)
    engine.events.publish("image", "tag", image.id, {**image.config.labels, "name": reference.familiar})


def _uses(engine: Engine) -> Iterable[Use]:
    return [
        Use(container_id=container.id, image_id=image_id, running=container.state.running)
        for container in engine.containers
        for image_id in (container.image_id, *(point.image_id for point in container.mounts if point.image_id))
    ]


async def remove_image(engine: Engine, ref: str, *, force: bool, noprune: bool, keep: bool = True) -> list[Removed]:
    """Removes a name, or an image. keep: an image waits in the trash, if the engine has one.

    Raises NotFound, InvalidArgument, Conflict with Docker's texts.
    """
    uses = _uses(engine)
    thrower = _thrower(engine, keep)
    how = _removal(engine, thrower, uses, force=force, noprune=noprune)
    with _finished_anyway(engine, thrower):
        removed = await in_thread(image_remove.remove_as, engine.images, ref, how)
    _removed(engine, removed, thrower)
    return removed


@contextlib.contextmanager
def _finished_anyway(engine: Engine, thrower: trash_images.Thrower | None) -> Iterator[None]:
    """What a removal that fails half-way leaves of images that are forgotten is taken away beside."""
    try:
        yield
    except (Conflict, InvalidArgument, NotFound):  # before anything was done
        raise
    except Exception as error:
        for entry in thrower.entries if thrower else ():
            if engine.images.find(f"sha256:{entry.id}") is None:
                trash.thrown(engine, entry)
        work = functools.partial(trash_images.finish_removal, engine)
        unfinished.finish_later(engine, "images", "free the space of removed images", work, error)
        raise


def _thrower(engine: Engine, keep: bool) -> trash_images.Thrower | None:
    return trash_images.Thrower(engine) if keep and trash.is_on(engine) else None


def _removal(
    engine: Engine,
    thrower: trash_images.Thrower | None,
    uses: Iterable[Use],
    *,
    force: bool = False,
    noprune: bool = False,
) -> image_remove.Removal:
    return image_remove.Removal(
        force=force,
        noprune=noprune,
        in_use=lambda: uses,
        keep=thrower.keep if thrower else None,
        waits=engine.trash.holds_layers,
    )


def _removed(engine: Engine, removed: list[Removed], thrower: trash_images.Thrower | None) -> None:
    """Images were removed: tells who wants to know, and sees to what they leave."""
    for entry in thrower.entries if thrower else ():
        trash.thrown(engine, entry)
    if thrower is None:
        gone = {line.image_id for line in removed if line.kind == "deleted" and not line.layer}
        trash_containers.drop_of_images(engine, gone)
    _publish_removed(engine, removed)
    _sweep(engine)


def _publish_removed(engine: Engine, removed: Iterable[Removed]) -> None:
    for line in removed:
        if line.kind == "untagged":
            engine.events.publish("image", "untag", line.image_id, {"name": line.value})
        elif not line.layer:
            engine.events.publish("image", "delete", line.image_id, {"name": line.image_id})


def _sweep(engine: Engine) -> None:
    """Frees the space of removed layers, in its own time."""
    empty_trash_soon(engine)


async def prune_images(engine: Engine, filters: Filters, *, keep: bool = True) -> tuple[list[Removed], PruneReport]:
    """Removes images that nothing needs: what was removed, and the bytes that this freed. Raises InvalidArgument.

    keep: they wait in the trash, if the engine has one.
    """
    uses = _uses(engine)
    thrower = _thrower(engine, keep)
    how = _removal(engine, thrower, uses)
    with _finished_anyway(engine, thrower):
        pruned = await in_thread(image_prune.prune, engine.images, filters, in_use=how.in_use, how=how)
    _removed(engine, list(pruned.removed), thrower)
    engine.events.publish("image", "prune", "", {"reclaimed": str(pruned.reclaimed_bytes)})
    kept = {entry.id for entry in thrower.entries} if thrower else set()
    weights = await in_thread(trash.weights, engine)
    report = PruneReport(
        removed=tuple(line.value for line in pruned.removed),
        reclaimed_bytes=pruned.reclaimed_bytes,
        trashed=len(kept),
        trashed_bytes=sum(weights.get(entry_id, 0) for entry_id in kept),
    )
    return list(pruned.removed), report


__all__ = [
    "HistoryEntry",
    "Image",
    "ImageSummary",
    "ImportOptions",
    "PruneReport",
    "Removed",
    "image_history",
    "import_image",
    "import_stream",
    "inspect_image",
    "list_images",
    "prune_images",
    "remove_image",
    "resolve_image",
    "tag_image",
]
