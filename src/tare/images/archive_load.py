"""`load`: the images of an archive become this engine's.

Must never record an image before all of the archive has been read and checked, nor leave a layer of one refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from tare import faults
from tare.errors import InvalidArgument, ResourceExhausted
from tare.images.archive_docker import MANIFEST, docker_images
from tare.images.archive_image import ArchivedImage, format_platform, suits
from tare.images.archive_oci import INDEX, LAYOUT, holds_indexes, oci_images
from tare.images.archive_read import Contents, Progress, read_archive
from tare.images.images import Images
from tare.images.records import Image, Platform
from tare.storage.decompress import Readable
from tare.storage.full_disk import naming_the_disk
from tare.storage.limits import DEFAULT_LIMITS, Limits
from tare.values.reference import Reference


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """An image that was loaded. references: the names it got. taken_from: the images that had them, by name."""

    image: Image
    references: tuple[Reference, ...]
    taken_from: dict[str, str]


def load(
    images: Images,
    stream: Readable,
    *,
    platforms: Sequence[Platform] = (),
    progress: Progress = lambda name, done, size: None,
    limits: Limits = DEFAULT_LIMITS,
    loaded: Callable[[Loaded], None] = lambda one: None,
) -> list[Loaded]:
    """Loads every image of a docker-archive or OCI layout, compressed or not; `loaded` hears of each once it is safe.

    Raises InvalidArgument for an archive that isn't right in every digest; nothing of it stays then.
    """
    try:
        with naming_the_disk(images.layers.root), images.layers.lease(what="load") as lease:
            contents = read_archive(stream, images.layers, lease, progress, limits)
            found = archived_images(contents, platforms)
            faults.point("images.load.checked")
            return _record_all(images, parents_first(found), loaded)
    except BaseException:
        with suppress(ResourceExhausted):  # a full disk: the next collection takes what this one would
            images.layers.collect()
        raise


def archived_images(contents: Contents, platforms: Sequence[Platform] = ()) -> list[ArchivedImage]:
    """What images an archive holds: Docker's manifest.json counts; without it, or to choose platforms, the layout."""
    layout = contents.has(LAYOUT) and contents.has(INDEX)
    if contents.has(MANIFEST) and not (layout and (platforms or holds_indexes(contents))):
        images = docker_images(contents)
        if platforms:
            images = [image for image in images if any(suits(image.platform, one) for one in platforms)]
        if not images:
            wanted = f" for {', '.join(format_platform(one) for one in platforms)}" if platforms else ""
            raise InvalidArgument(f"invalid archive: its manifest.json lists no image{wanted}")
        return images
    if layout:
        return oci_images(contents, platforms)
    if contents.has("repositories"):
        raise InvalidArgument("unsupported image format: an archive of Docker before 1.10, without a manifest.json")
    raise InvalidArgument("invalid archive: does not contain a manifest.json or index.json")


def parents_first(found: Sequence[ArchivedImage]) -> list[ArchivedImage]:
    """The same images, each after the one in the same archive that it was made from."""
    waiting = list(found)
    done: list[ArchivedImage] = []
    while waiting:
        left = {image.id for image in waiting}
        ready = [image for image in waiting if image.parent_id not in left or image.parent_id == image.id]
        done += ready or waiting  # parents in a circle: none is believed
        waiting = [image for image in waiting if image not in done]
    return done


def _record_all(images: Images, found: Sequence[ArchivedImage], loaded: Callable[[Loaded], None]) -> list[Loaded]:
    """Each image by itself; those of an index first, then the index, which is known by its first image."""
    done = [_record(images, one, loaded) for one in found if one.index is None]
    indexes: dict[bytes, list[ArchivedImage]] = {}
    for one in found:
        if one.index is not None:
            indexes.setdefault(one.index.document, []).append(one)
    return done + [_record_index(images, members, loaded) for members in indexes.values()]


def _record_index(images: Images, found: Sequence[ArchivedImage], loaded: Callable[[Loaded], None]) -> Loaded:
    """The images of one index, and the index, which bears the names."""
    index = found[0].index
    assert index is not None
    with images.lock:
        taken = _taken(images, index.references, found[0].id)
        for one in found:
            images.record_document(one.config, why="load", manifest=one.manifest)
        image = images.record_index(
            index.document,
            {one.manifest_digest: one.id for one in found if one.manifest is not None},
            found[0].id,
            why="load",
            attached=index.attached,
            references=index.references,
        )
    done = Loaded(image=image, references=index.references, taken_from=taken)
    loaded(done)
    return done


def _taken(images: Images, references: Sequence[Reference], image_id: str) -> dict[str, str]:
    """The names that other images have, with these images' ids."""
    owners = {reference.familiar: images.referred(reference) for reference in references}
    return {name: owner for name, owner in owners.items() if owner is not None and owner != image_id}


def _record(images: Images, one: ArchivedImage, loaded: Callable[[Loaded], None]) -> Loaded:
    parent = images.find(one.parent_id) if one.parent_id else None
    diff_ids = tuple(one.spec.rootfs.diff_ids)
    if parent is not None and (parent.id == one.id or diff_ids[: len(parent.diff_ids)] != parent.diff_ids):
        parent = None
    with images.lock:
        taken = _taken(images, one.references, one.id)
        image = images.record_document(
            one.config,
            why="load",
            manifest=one.manifest,
            parent_id=parent.id if parent else None,
            references=one.references,
        )
    done = Loaded(image=image, references=one.references, taken_from=taken)
    loaded(done)
    return done
