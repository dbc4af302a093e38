"""`squash`: several versions that follow each other become one, with one layer."""

from __future__ import annotations

import msgspec

from tare import faults
from tare.errors import InvalidArgument
from tare.images.commit import EMPTY_LAYER
from tare.images.images import Images
from tare.images.records import Image
from tare.oci.image_spec import History, RootFS
from tare.storage.full_disk import naming_the_disk
from tare.storage.snapshots import Snapshots
from tare.values.ids import short_id
from tare.values.reference import Reference
from tare.values.timestamps import format_rfc3339, now_ns


class SquashOptions(msgspec.Struct, frozen=True, kw_only=True):
    """message: what the history shows; "" for those of the versions that are squashed, one a line."""

    message: str = ""
    author: str = ""
    created_by: str = ""
    reference: Reference | None = None


def squash(images: Images, snapshots: Snapshots, below: Image | None, top: Image, options: SquashOptions) -> Image:
    """All that came after `below` (None: everything) up to `top` as one layer; settings are top's.

    Raises InvalidArgument unless top goes on from below.
    """
    under = below.diff_ids if below is not None else ()
    above = top.diff_ids[len(under) :]
    if top.diff_ids[: len(under)] != under:
        raise InvalidArgument(
            f"the layers of {short_id(top.id)} don't go on from those of {short_id(below.id if below else '')}"
        )
    if not above:
        raise InvalidArgument("there is nothing to squash: both have the same layers")
    with naming_the_disk(images.layers.root), images.layers.lease(top.diff_ids, what="squash") as lease:
        layer = snapshots.squash(above, lease=lease)
        faults.point("images.squash.layer")
        empty = layer.diff_id == EMPTY_LAYER
        created = format_rfc3339(now_ns())
        history = list(below.spec.history or [History() for _ in under]) if below is not None else []
        step = History(
            created=created,
            author=options.author,
            created_by=options.created_by,
            comment=options.message or _messages(top, len(history)),
            empty_layer=empty,
        )
        spec = msgspec.structs.replace(
            top.spec,
            created=created,
            author=options.author or top.spec.author,
            rootfs=RootFS(diff_ids=[*under, *([] if empty else [layer.diff_id])]),
            history=[*history, step],
        )
        reference = options.reference.with_default_tag() if options.reference else None
        return images.record(spec, why="squash", parent_id=below.id if below else None, reference=reference)


def _messages(top: Image, count: int) -> str:
    comments = [step.comment for step in top.spec.history[count:] if step.comment]
    return "\n".join(comments)
