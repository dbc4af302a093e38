"""One image as an archive's documents describe it, checked against the layers that came with it.

Must never let an image through whose config, manifest and layers don't agree in every digest.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tare.errors import InvalidArgument, TareError
from tare.images.archive_read import StoredLayer
from tare.images.import_image import host_platform
from tare.images.platforms import format_platform as format_platform
from tare.images.platforms import suits as suits
from tare.images.records import Platform
from tare.oci.image_spec import ImageSpec, Manifest, parse_image_spec
from tare.values.digest import digest_bytes, is_digest
from tare.values.reference import Reference, parse_reference


class ArchivedIndex(msgspec.Struct, frozen=True, kw_only=True):
    """An index for several platforms that an archive holds. attached: what else it leads to. references: its names."""

    document: bytes
    attached: tuple[bytes, ...] = ()
    references: tuple[Reference, ...] = ()


class ArchivedImage(msgspec.Struct, frozen=True, kw_only=True):
    """config: the document as it is. manifest: kept where it says nothing but what the store has, else None.

    parent_id: the id of the image in the same archive that this one was made from, or "". index: whose it is.
    """

    config: bytes
    spec: ImageSpec
    manifest: bytes | None = None
    references: tuple[Reference, ...] = ()
    parent_id: str = ""
    index: ArchivedIndex | None = None

    @property
    def id(self) -> str:
        return digest_bytes(self.config)

    @property
    def manifest_digest(self) -> str:
        return digest_bytes(self.manifest) if self.manifest is not None else ""

    @property
    def platform(self) -> Platform:
        return Platform(os=self.spec.os, architecture=self.spec.architecture, variant=self.spec.variant)


def checked_spec(config: bytes, layers: Sequence[StoredLayer]) -> ImageSpec:
    """The config as a record. Raises InvalidArgument, with Docker's texts, unless the layers are the ones it names."""
    spec = parse_image_spec(config)
    if spec.os != "linux":
        raise InvalidArgument(f"cannot load {spec.os[:32]} image on linux")
    wanted = spec.rootfs.diff_ids
    for diff_id in wanted:
        if not is_digest(diff_id):
            raise InvalidArgument(f"invalid image configuration: {diff_id[:100]!r} is no digest")
    if len(wanted) != len(layers):
        raise InvalidArgument(f"invalid manifest, layers length mismatch: expected {len(wanted)}, got {len(layers)}")
    for number, (diff_id, layer) in enumerate(zip(wanted, layers, strict=True)):
        if diff_id != layer.diff_id:
            raise InvalidArgument(f'invalid diffID for layer {number}: expected "{diff_id}", got "{layer.diff_id}"')
    return spec


def says_the_same(manifest: Manifest, config: bytes, layers: Sequence[StoredLayer]) -> bool:
    """Whether a manifest describes what the store can give out: this config, and these layers as they came."""
    return (
        (manifest.config.digest, manifest.config.size) == (digest_bytes(config), len(config))
        and all(layer.plain or layer.kept for layer in layers)
        and [(layer.digest, layer.size) for layer in manifest.layers] == [(one.digest, one.size) for one in layers]
    )


def checked_tag(text: str) -> Reference:
    """A name in an archive. Raises InvalidArgument unless it is a name with a tag and without a digest."""
    try:
        reference = parse_reference(text)
    except TareError as error:
        raise InvalidArgument(f'invalid tag "{text[:300]}": {error}') from error
    if reference.digest is not None or reference.tag is None:
        raise InvalidArgument(f'invalid tag "{text[:300]}"')
    return reference


def ours() -> Platform:
    return host_platform()
