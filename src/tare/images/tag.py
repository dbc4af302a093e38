"""`tag`: one more name for an image; a name that another image had moves."""

from __future__ import annotations

from tare import faults
from tare.errors import InvalidArgument
from tare.images import documents
from tare.images.images import Images, set_reference
from tare.images.records import Image
from tare.images.resolve import is_id_of, resolve
from tare.storage.full_disk import naming_the_disk
from tare.values.reference import Reference, parse_reference


def tag_name(images: Images, text: str, reference: Reference) -> Image:
    """Names what `text` names: the image of an id, or all that a name stands for, which may be an index."""
    with images.lock:
        image = resolve(images, text)
        return tag(images, image, reference, target=_target(images, image, text))


def _target(images: Images, image: Image, text: str) -> str:
    """The index or further manifest of the image that a user's text leads to, "" for its own manifest."""
    if is_id_of(image.id, text):
        return ""
    named = parse_reference(text)
    target = images.target(named)
    if not target and named.digest is not None and named.digest != image.manifest_digest:
        target = named.digest
    return target if target in documents.all_of(images, image.id) else ""


def tag(images: Images, image: Image, reference: Reference, *, target: str = "") -> Image:
    """Returns the image with its new name. Raises InvalidArgument for a digest reference, NotFound for a lost image.

    target: the index or manifest of the image that the name is to stand for, if not its own manifest.
    """
    if reference.digest is not None:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    with images.lock, naming_the_disk(images.layers.root):
        images.get(image.id)  # it may have been removed since it was resolved
        with images.db.transaction() as tx:
            set_reference(tx, reference.with_default_tag(), image.id, why="tag", target=target)
            faults.point("images.tag")
    return images.get(image.id)
