"""`image prune`: removes images without a name, or all that no container uses."""

from __future__ import annotations

import msgspec

from tare.errors import Conflict, NotFound
from tare.images.images import Images
from tare.images.listing import list_images
from tare.images.records import Image, Pruned, Removed, Uses
from tare.images.reflog import moved_from
from tare.images.remove import Removal, no_uses, remove_as
from tare.values.filters import Filters, check_filters, flag
from tare.values.timestamps import now_ns, parse_duration


def prune(
    images: Images, filters: Filters | None = None, *, in_use: Uses = no_uses, how: Removal | None = None
) -> Pruned:
    """filters: dangling (true: only unnamed images, the default), until, label, label!.

    moved=DURATION, which Docker doesn't have, spares what a name was moved away from within that time. how: who keeps
    what is removed. Reclaimed is what nobody keeps.
    """
    filters = dict(filters or {})
    check_filters(filters, ("dangling", "label", "label!", "moved", "until"))
    only_dangling = flag(filters, "dangling", True)
    filters.pop("dangling", None)
    spared: set[str] = set()
    for text in filters.pop("moved", ()):
        spared |= moved_from(images, now_ns() - parse_duration(text))
    before = {layer.diff_id: layer.size_bytes for layer in images.layers.all()}
    used = {use.image_id for use in in_use()}
    how = msgspec.structs.replace(how or Removal(), in_use=in_use)
    removed: list[Removed] = []
    for image in list_images(images, filters, all_images=not only_dangling):
        if image.id in used or image.id in spared or (only_dangling and not image.dangling):
            continue
        removed.extend(_remove_all(images, image, how))
    after = {layer.diff_id for layer in images.layers.all()}
    return Pruned(
        removed=tuple(removed), reclaimed_bytes=sum(size for diff_id, size in before.items() if diff_id not in after)
    )


def _remove_all(images: Images, image: Image, how: Removal) -> list[Removed]:
    """Every name, then the image; one that a child or a new container needs is left alone."""
    removed: list[Removed] = []
    try:
        names = [*image.repo_tags, *image.repo_digests]
        how = msgspec.structs.replace(how, were_names=tuple(names))
        for name in names:
            removed.extend(remove_as(images, name, how))
        if not names:
            removed.extend(remove_as(images, image.id, how))
    except (Conflict, NotFound):
        pass  # someone began to use or removed it meanwhile
    return removed
