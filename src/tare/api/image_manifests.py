"""An image's platforms in Docker's JSON: `Manifests` of the list since 1.47, of inspect since 1.48. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tare.engine.image_manifests import ManifestSummary


def manifests_json(found: Iterable[ManifestSummary]) -> list[dict[str, Any]]:
    return [_manifest_json(one) for one in found]


def _manifest_json(one: ManifestSummary) -> dict[str, Any]:
    platform = {"architecture": one.platform.architecture, "os": one.platform.os}
    if one.platform.variant:
        platform["variant"] = one.platform.variant
    return {
        "ID": one.digest,
        "Descriptor": {
            "mediaType": one.media_type,
            "digest": one.digest,
            "size": one.size_bytes,
            "platform": platform,
        },
        "Available": one.available,
        "Size": {"Content": one.content_bytes, "Total": one.content_bytes + one.unpacked_bytes},
        "Kind": "image",
        "ImageData": {
            "Platform": platform,
            "Containers": list(one.containers),
            "Size": {"Unpacked": one.unpacked_bytes},
            "UnpackedSize": one.unpacked_bytes,  # the specification asks for it beside Size
        },
    }
