"""`tag`: one more name for an image; a name that another image had moves."""

from __future__ import annotations

from tare import faults
from tare.errors import InvalidArgument
from tare.images.images import Images, set_reference
from tare.images.records import Image
from tare.storage.full_disk import naming_the_disk
from tare.values.reference import Reference


def tag(images: Images, image: Image, reference: Reference) -> Image:
    """Returns the image with its new name. Raises InvalidArgument for a digest reference, NotFound for a lost image."""
    if reference.digest is not None:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    with images.lock, naming_the_disk(images.layers.root):
        images.get(image.id)  # it may have been removed since it was resolved
        with images.db.transaction() as tx:
            set_reference(tx, reference.with_default_tag(), image.id, why="tag")
            faults.point("images.tag")
    return images.get(image.id)
