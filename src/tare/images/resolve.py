"""From what a user typed to an image."""

from __future__ import annotations

import re

from tare.errors import NotFound
from tare.images.images import Images
from tare.images.records import Image
from tare.values.digest import is_digest
from tare.values.ids import is_id
from tare.values.reference import parse_reference

_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})\Z")


def resolve(images: Images, text: str) -> Image:
    """The image of a name, name:tag, name@digest, full id or unambiguous beginning of an id.

    A name wins over an id that begins with the same letters. Raises NotFound or InvalidArgument with Docker's texts.
    """
    if is_id(text) or is_digest(text):
        full = text if is_digest(text) else f"sha256:{text}"
        image = images.find(full)
        if image is None:
            raise no_such_image(full)
        return image
    reference = parse_reference(text)
    image_id = images.referred(reference)
    if image_id is None and reference.digest is not None:
        image_id = _by_manifest(images, reference.digest, reference.repository)
    image = images.find(image_id) if image_id else _by_prefix(images, text)
    if image is None:
        raise no_such_image(reference.with_default_tag().familiar)
    return image


def no_such_image(shown: str) -> NotFound:
    return NotFound(f"No such image: {shown}")


def is_id_of(image_id: str, text: str) -> bool:
    """Whether the user meant the image by its id, not by a name."""
    return image_id.startswith(text) or image_id.removeprefix("sha256:").startswith(text)


def _by_prefix(images: Images, text: str) -> Image | None:
    found = _ID_PREFIX.match(text)
    if not found:
        return None
    prefix = f"sha256:{found[1]}"
    rows = images.db.all(
        "SELECT image_id FROM images WHERE image_id >= ? AND image_id < ? LIMIT 2", (prefix, prefix + "g")
    )
    return images.find(rows[0]["image_id"]) if len(rows) == 1 else None


def _by_manifest(images: Images, digest: str, repository: str) -> str | None:
    """A local image is also known by its manifest's digest, under each repository it has a tag in."""
    row = images.db.one("SELECT image_id FROM images WHERE manifest_digest = ?", (digest,))
    row = row or images.db.one(
        "SELECT image_id FROM image_documents WHERE digest = ? AND kind != 'attached'", (digest,)
    )
    if row is None:
        return None
    image_id: str = row["image_id"]
    return image_id if any(name.repository == repository for name in images.references(image_id)) else None
