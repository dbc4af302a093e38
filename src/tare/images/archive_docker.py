"""Docker's own archives: manifest.json, with layers as <id>/layer.tar (until 24) or blobs/sha256/<hex> (since 25).

Must never follow a name that the archive doesn't hold.

    [{"Config": name, "RepoTags": [tag …] or null, "Layers": [name …], "Parent": id or absent}, …]
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tare.errors import InvalidArgument
from tare.images.archive_image import ArchivedImage, checked_spec, checked_tag, says_the_same
from tare.images.archive_oci import kept_manifests
from tare.images.archive_read import Contents
from tare.oci.image_spec import Manifest, parse_document
from tare.values.digest import digest_bytes

MANIFEST = "manifest.json"
_NAMED_BY_DIGEST = re.compile(r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})(?:\.json)?\Z")


class _Item(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    config: str
    layers: list[str] = []
    repo_tags: list[str] = []
    parent: str = ""


def docker_images(contents: Contents) -> list[ArchivedImage]:
    """The images that manifest.json lists. Raises InvalidArgument for whatever in it isn't right."""
    items = parse_document(contents.document(MANIFEST, "it"), list[_Item], MANIFEST)
    manifests = kept_manifests(contents)
    return [_image(contents, item, manifests) for item in items]


def _image(contents: Contents, item: _Item, manifests: Mapping[str, tuple[Manifest, bytes]]) -> ArchivedImage:
    config = contents.document(item.config, MANIFEST)
    image_id = digest_bytes(config)
    named = _NAMED_BY_DIGEST.match(item.config)
    if named and f"sha256:{named[1]}" != image_id:
        raise InvalidArgument(f'invalid archive: "{item.config}" has the digest {image_id}')
    layers = [contents.layer(name, MANIFEST) for name in item.layers]
    spec = checked_spec(config, layers)
    manifest, document = manifests.get(image_id, (None, None))
    if manifest is not None and not says_the_same(manifest, config, layers):
        document = None
    return ArchivedImage(
        config=config,
        spec=spec,
        manifest=document,
        references=tuple(checked_tag(text) for text in item.repo_tags),
        parent_id=item.parent,
    )
