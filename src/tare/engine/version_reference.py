"""NAME@COMMIT: a version of an image among those that the name is, was, or came from."""

from __future__ import annotations

import re

from tare.engine.engine import Engine
from tare.engine.image_verbs import resolve_image
from tare.errors import InvalidArgument, NotFound
from tare.images import graph, reflog
from tare.images.images import name_of
from tare.images.records import Image
from tare.values.reference import Reference, parse_reference

_VERSION = re.compile(r"([^@]+)@([0-9a-f]{4,64})\Z")


def resolve_version(engine: Engine, text: str) -> Image:
    """The image of a name, an id, or NAME@ID: a version of that name by the beginning of its id.

    Raises NotFound, InvalidArgument.
    """
    found = _VERSION.match(text)
    if found is None:
        return resolve_image(engine, text)
    name, wanted = found[1], found[2]
    reference = parse_reference(name)
    heads = _heads(engine, reference)
    if not heads:
        resolve_image(engine, name)  # says that it isn't there
    known = {version.image.id: version.image for version in graph.versions(engine.images, heads)} if heads else {}
    matches = [image for id_, image in known.items() if id_.startswith(f"sha256:{wanted}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InvalidArgument(f"several versions of {name} have ids that begin with {wanted}")
    raise NotFound(f"No such image: {text}")


def _heads(engine: Engine, reference: Reference) -> list[Image]:
    """The images that the name has, or had (of a name without a tag: with any)."""
    images = engine.images
    moves = reflog.reflog(images, reference if reference.tag else None)
    ids = {
        id_
        for move in moves
        if name_of(move.reference) == name_of(reference)
        for id_ in (move.old_id, move.new_id)
        if id_ is not None
    }
    for image in images.all():
        names = [name for name in images.references(image.id) if name_of(name) == name_of(reference)]
        if any(reference.tag in (None, name.tag) for name in names):
            ids.add(image.id)
    return [found for id_ in sorted(ids) if (found := images.find(id_)) is not None]
