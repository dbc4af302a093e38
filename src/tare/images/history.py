"""`history`: how an image came to be, newest step first."""

from __future__ import annotations

from tare.errors import NotFound
from tare.images.images import Images
from tare.images.records import HistoryEntry, Image
from tare.oci.image_spec import History
from tare.values.timestamps import NEVER_NS, parse_rfc3339, storable

MISSING = "<missing>"


def history(images: Images, image: Image) -> list[HistoryEntry]:
    """One entry per step; a step where an image of this engine ends bears its id and tags."""
    sizes = iter([images.layers.get(diff_id).size_bytes for diff_id in image.diff_ids])
    steps = list(image.spec.history) or [History() for _ in image.diff_ids]
    measured = [(step, 0 if step.empty_layer else next(sizes, 0)) for step in steps]
    entries = []
    at: Image | None = image
    for step, size_bytes in reversed(measured):
        entries.append(
            HistoryEntry(
                id=at.id if at else MISSING,
                created_ns=storable(parse_rfc3339(step.created)) if step.created else NEVER_NS,
                created_by=step.created_by,
                size_bytes=size_bytes,
                comment=step.comment,
                tags=at.repo_tags if at else (),
            )
        )
        at = _parent(images, at)
    return entries


def _parent(images: Images, image: Image | None) -> Image | None:
    if image is None or image.parent_id is None:
        return None
    try:
        return images.get(image.parent_id)
    except NotFound:
        return None
