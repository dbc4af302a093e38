"""`commit`: a container's changes become one more layer on its image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from tare.errors import ResourceExhausted
from tare.images.images import Images
from tare.images.import_image import host_platform
from tare.images.instruction import apply_changes
from tare.images.records import Image
from tare.oci.image_spec import History, ImageConfig, ImageSpec, Origin, RootFS
from tare.storage.chunks.tidy import note as note_layer
from tare.storage.full_disk import naming_the_disk
from tare.storage.layers import Layer
from tare.storage.snapshots import Snapshots
from tare.values.reference import Reference
from tare.values.timestamps import format_rfc3339, now_ns

# The sha256 of a tar without entries: nothing was changed, so no layer is added.
EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


class CommitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """config: the container's, with what the request overrides. created_by: the container's command line.

    container_id, origin: which container it was.
    """

    config: ImageConfig
    changes: Sequence[str] = ()
    author: str = ""
    comment: str = ""
    created_by: str = ""
    container_id: str = ""
    origin: Origin | None = None
    reference: Reference | None = None
    previous_id: str | None = None


def commit_snapshot(
    images: Images, snapshots: Snapshots, snapshot_id: str, parent: Image | None, options: CommitOptions
) -> Image:
    """Makes the layer of a snapshot's changes and the image over it; nothing in between can be collected.

    Older versions of large files in it are packed by the next `Layers.tidy`.
    """
    apply_changes(options.config, options.changes)  # wrong ones are refused before any work
    below = snapshots.diff_ids(snapshot_id)
    with naming_the_disk(images.layers.root), images.layers.lease(below, what="commit") as lease:
        layer = snapshots.commit(snapshot_id, lease=lease)
        image = commit(images, layer, snapshots.diff_ids(snapshot_id), parent, options)
    previous = images.find(options.previous_id) if options.previous_id else None
    with suppress(ResourceExhausted):  # a full disk: the image is there, only packing doesn't hear of it
        note_layer(images.layers.packing, layer.diff_id, [*_nearest(previous), *_nearest(parent)])
    return image


def _nearest(image: Image | None) -> Sequence[str]:
    """An image's layers, topmost first."""
    return image.diff_ids[::-1] if image is not None else ()


def commit(images: Images, layer: Layer, below: Sequence[str], parent: Image | None, options: CommitOptions) -> Image:
    """An image of the layers `below` and `layer` on top. The caller's lease holds them all.

    parent may be None though there are layers below: the container's image was removed.
    """
    empty = layer.diff_id == EMPTY_LAYER
    created = format_rfc3339(now_ns())
    platform = host_platform()
    history = list(parent.spec.history) if parent else [History(created=created) for _ in below]
    history.append(
        History(
            created=created,
            author=options.author,
            created_by=options.created_by,
            comment=options.comment,
            empty_layer=empty,
        )
    )
    spec = ImageSpec(
        architecture=parent.spec.architecture if parent else platform.architecture,
        os=parent.spec.os if parent else platform.os,
        variant=parent.spec.variant if parent else platform.variant,
        created=created,
        author=options.author,
        config=apply_changes(options.config, options.changes),
        rootfs=RootFS(diff_ids=[*below, *([] if empty else [layer.diff_id])]),
        history=history,
        container=options.container_id,
        container_config=options.origin,
    )
    reference = options.reference.with_default_tag() if options.reference else None
    return images.record(
        spec,
        why="commit",
        parent_id=parent.id if parent else None,
        previous_id=options.previous_id,
        reference=reference,
    )
