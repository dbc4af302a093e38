"""An image's platforms in Docker's JSON: `Manifests` of the list and of inspect, since 1.47 and 1.48."""

from __future__ import annotations

from typing import Any

from tare.engine.engine import Engine
from tare.images.documents import Variant, platform_of, variants
from tare.images.records import Image, Platform
from tare.oci.image_spec import parse_manifest


def manifests_json(engine: Engine, image: Image) -> list[dict[str, Any]]:
    """What the image's index lists, or its one manifest. Reads documents."""
    found = variants(engine.images, image) or [_alone(engine, image)]
    return [_manifest_json(engine, variant) for variant in found]


def _alone(engine: Engine, image: Image) -> Variant:
    document = engine.images.content.get(image.manifest_digest)
    return Variant(
        manifest_digest=image.manifest_digest,
        size_bytes=len(document),
        media_type=parse_manifest(document).media_type,
        platform=platform_of(image),
        image=image,
    )


def _manifest_json(engine: Engine, variant: Variant) -> dict[str, Any]:
    image = variant.image
    content = variant.size_bytes
    if image is not None:
        manifest = parse_manifest(engine.images.content.get(variant.manifest_digest))
        content += manifest.config.size + sum(layer.size for layer in manifest.layers)
    unpacked = image.size_bytes if image is not None else 0
    platform = _platform_json(variant.platform)
    users = [one.id for one in engine.containers if image is not None and one.image_id == image.id]
    return {
        "ID": variant.manifest_digest,
        "Descriptor": {
            "mediaType": variant.media_type,
            "digest": variant.manifest_digest,
            "size": variant.size_bytes,
            "platform": platform,
        },
        "Available": image is not None,
        "Size": {"Content": content if image is not None else 0, "Total": unpacked + content if image else 0},
        "Kind": "image",
        "ImageData": {
            "Platform": platform,
            "Containers": users,
            "Size": {"Unpacked": unpacked},
            "UnpackedSize": unpacked,  # the specification asks for it beside Size
        },
    }


def _platform_json(platform: Platform) -> dict[str, str]:
    made = {"architecture": platform.architecture, "os": platform.os}
    return {**made, "variant": platform.variant} if platform.variant else made
