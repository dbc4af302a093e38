"""Images on their way to another engine: the archive of `save`, without the layers that are there already.

Must never leave out what nobody asked to be left out; the receiver checks all that it gets as it checks an archive.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from tare.images.archive_plan import Chosen, PlannedLayer, planned
from tare.images.archive_save import Write, save
from tare.images.history_notes import NOTES, note
from tare.images.images import Images
from tare.images.resolve import is_id_of, resolve
from tare.values.reference import parse_reference


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a sending would carry: the images with their names, and all their layers, bottom first."""

    chosen: list[Chosen]
    layers: list[PlannedLayer]


def offer(images: Images, names: Sequence[str]) -> Offer:
    """What belongs to the named images: themselves, and those they were made from whose layers they have all.

    A name stands for one image (without a tag: latest), an id goes without names. Raises NotFound, InvalidArgument.
    """
    chosen: dict[str, Chosen] = {}
    for name in names:
        image = resolve(images, name)
        references = set(chosen[image.id].references) if image.id in chosen else set()
        if not is_id_of(image.id, name) and (reference := parse_reference(name)).digest is None:
            references.add(reference.with_default_tag())
        chosen[image.id] = Chosen(image=image, references=tuple(sorted(references, key=lambda one: one.canonical)))
    for one in list(chosen.values()):
        parent_id = one.image.parent_id
        while parent_id and parent_id not in chosen and (parent := images.find(parent_id)) is not None:
            if one.image.diff_ids[: len(parent.diff_ids)] != parent.diff_ids:
                break
            chosen[parent.id] = Chosen(image=parent, references=())
            parent_id = parent.parent_id
    found = list(chosen.values())
    return Offer(chosen=found, layers=list(planned(images, found).layers.values()))


def send(images: Images, offered: Offer, without: Collection[str], write: Write) -> None:
    """Writes the archive. without: digests of layers that the receiver has."""
    left_out = [layer.digest for layer in offered.layers if layer.digest in set(without)]
    references = [reference for one in offered.chosen for reference in one.references]
    notes = note(images, [one.image for one in offered.chosen], references, left_out)
    save(images, offered.chosen, write, without=frozenset(left_out), notes={NOTES: notes})
