"""An image's platforms: what its index lists, what of that is here, and what it takes."""

from __future__ import annotations

import msgspec

from tare.engine.engine import Engine
from tare.images.documents import Variant, platform_of, variants
from tare.images.records import Image, Platform
from tare.oci.image_spec import parse_manifest


class ManifestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One platform's manifest. content_bytes: of its documents and layers as blobs; 0 if it isn't here.

    containers: ids of those that are made of it.
    """

    digest: str
    media_type: str
    size_bytes: int
    platform: Platform
    available: bool
    content_bytes: int
    unpacked_bytes: int
    containers: tuple[str, ...]


def image_manifests(engine: Engine, image: Image) -> list[ManifestSummary]:
    """What the image's index lists, or its one manifest. Reads documents."""
    found = variants(engine.images, image) or [_alone(engine, image)]
    return [_summary(engine, variant) for variant in found]


def _alone(engine: Engine, image: Image) -> Variant:
    document = engine.images.content.get(image.manifest_digest)
    return Variant(
        manifest_digest=image.manifest_digest,
        size_bytes=len(document),
        media_type=parse_manifest(document).media_type,
        platform=platform_of(image),
        image=image,
    )


def _summary(engine: Engine, variant: Variant) -> ManifestSummary:
    image = variant.image
    content = 0
    users: tuple[str, ...] = ()
    if image is not None:
        manifest = parse_manifest(engine.images.content.get(variant.manifest_digest))
        content = variant.size_bytes + manifest.config.size + sum(layer.size for layer in manifest.layers)
        users = tuple(one.id for one in engine.containers if one.image_id == image.id)
    return ManifestSummary(
        digest=variant.manifest_digest,
        media_type=variant.media_type,
        size_bytes=variant.size_bytes,
        platform=variant.platform,
        available=image is not None,
        content_bytes=content,
        unpacked_bytes=image.size_bytes if image is not None else 0,
        containers=users,
    )
