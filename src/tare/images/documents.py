"""What came with an image beside its config and its own manifest: other manifests, indexes and their other platforms.

Must never be changed but within the transaction that records or removes the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from tare.errors import NotFound
from tare.images.platforms import format_platform, suits
from tare.images.records import Image, Platform
from tare.oci.image_spec import parse_index, parse_manifest
from tare.storage.database import Database, Transaction

if TYPE_CHECKING:
    from tare.images.images import Images

Kind = Literal["manifest", "index", "attached"]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of an index. image: None if it isn't here. size_bytes: of its manifest."""

    manifest_digest: str
    size_bytes: int
    media_type: str
    platform: Platform
    image: Image | None


def add(tx: Transaction, image_id: str, digest: str, kind: Kind) -> None:
    tx.run("INSERT OR IGNORE INTO image_documents (image_id, digest, kind) VALUES (?, ?, ?)", (image_id, digest, kind))


def add_member(tx: Transaction, index_digest: str, manifest_digest: str, image_id: str) -> None:
    tx.run(
        "INSERT OR REPLACE INTO index_members (index_digest, manifest_digest, image_id) VALUES (?, ?, ?)",
        (index_digest, manifest_digest, image_id),
    )


def manifests(tx: Transaction, image_id: str) -> list[str]:
    """The digests of all manifests of an image."""
    rows = tx.all("SELECT manifest_digest AS digest FROM images WHERE image_id = ?", (image_id,))
    rows += tx.all("SELECT digest FROM image_documents WHERE image_id = ? AND kind = 'manifest'", (image_id,))
    return [row["digest"] for row in rows]


def originals(documents: Iterable[bytes], diff_ids: Sequence[str]) -> list[str]:
    """The compressed layers that manifests list."""
    found = {layer.digest for document in documents for layer in parse_manifest(document).layers}
    return sorted(found - set(diff_ids))


def of(images: Images, image_id: str, kind: Kind) -> list[str]:
    """The digests of an image's documents of a kind."""
    rows = images.db.all(
        "SELECT digest FROM image_documents WHERE image_id = ? AND kind = ? ORDER BY digest", (image_id, kind)
    )
    return [row["digest"] for row in rows]


def all_of(images: Images, image_id: str) -> list[str]:
    """The digests of all of them."""
    return [
        row["digest"] for row in images.db.all("SELECT digest FROM image_documents WHERE image_id = ?", (image_id,))
    ]


def holders(db: Database, image_id: str | None = None) -> dict[str, tuple[str, ...]]:
    """Of each image that belongs to another's index, the ids of those others."""
    where, params = (" AND m.image_id = ?", (image_id,)) if image_id else ("", ())
    found: dict[str, tuple[str, ...]] = {}
    for row in db.all(
        "SELECT DISTINCT m.image_id AS part, d.image_id AS holder FROM index_members m JOIN image_documents d"
        f" ON d.digest = m.index_digest AND d.kind = 'index' WHERE m.image_id != d.image_id{where} ORDER BY holder",
        params,
    ):
        found[row["part"]] = (*found.get(row["part"], ()), row["holder"])
    return found


def members(images: Images, index_digest: str) -> dict[str, str]:
    """The ids of an index's images that are here, by their manifests' digests."""
    rows = images.db.all("SELECT * FROM index_members WHERE index_digest = ?", (index_digest,))
    return {row["manifest_digest"]: row["image_id"] for row in rows}


def variants(images: Images, image: Image) -> list[Variant]:
    """What the indexes of an image list for all platforms, in their order; nothing for an image without an index."""
    found: dict[str, Variant] = {}
    for digest in of(images, image.id, "index"):
        here = members(images, digest)
        for entry in parse_index(images.content.get(digest)).manifests:
            platform = entry.platform
            member = images.find(here[entry.digest]) if entry.digest in here else None
            if member is None and (platform is None or "unknown" in (platform.os, platform.architecture)):
                continue
            found[entry.digest] = Variant(
                manifest_digest=entry.digest,
                size_bytes=entry.size,
                media_type=entry.media_type,
                platform=Platform(os=platform.os, architecture=platform.architecture, variant=platform.variant)
                if platform is not None and platform.architecture
                else platform_of(member),
                image=member,
            )
    return list(found.values())


def platform_of(image: Image | None) -> Platform:
    if image is None:
        return Platform()
    return Platform(os=image.spec.os, architecture=image.spec.architecture, variant=image.spec.variant)


def for_platform(images: Images, image: Image, wanted: Platform, shown: str) -> Image:
    """The image itself, or of its indexes the one, for a platform. Raises NotFound with Docker's text."""
    if suits(platform_of(image), wanted):
        return image
    for variant in variants(images, image):
        if variant.image is not None and suits(variant.platform, wanted):
            return variant.image
    raise NotFound(
        f"image with reference {shown} was found but does not provide the specified platform"
        f" ({format_platform(wanted)})"
    )


def without_index(images: Images) -> list[str]:
    """Forgets the members of indexes that no image has any more; returns the ids of these images."""
    gone = "index_digest NOT IN (SELECT digest FROM image_documents WHERE kind = 'index')"
    with images.db.transaction(frees=True) as tx:
        rows = tx.all(f"SELECT DISTINCT image_id FROM index_members WHERE {gone}")
        tx.run(f"DELETE FROM index_members WHERE {gone}")
    return [row["image_id"] for row in rows]
