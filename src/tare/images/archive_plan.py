"""What an archive of images holds: which documents, which layers in which form, and what the indexes say of them.

Must never name a layer that can't be given out bit for bit: an image whose compressed layers aren't kept any more goes
with a manifest of plain layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tare.images import documents
from tare.images.archive_oci import IMAGE_NAME, REF_NAME
from tare.images.images import Images, plain_manifest
from tare.images.records import Image
from tare.oci.image_spec import (
    LAYER_TYPE,
    DescriptorPlatform,
    IndexEntry,
    format_document,
    parse_index,
    parse_manifest,
)
from tare.values.digest import digest_bytes
from tare.values.reference import Reference


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """An image to save, with the tags that go along. alone: without the index that a tag stands for."""

    image: Image
    references: tuple[Reference, ...]
    alone: bool = False


class PlannedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as a blob. digest, size_bytes: of the blob, which is the plain tar if digest is the diff ID."""

    digest: str
    diff_id: str
    size_bytes: int
    media_type: str


class Plan:
    """Documents and layers by digest, in the order in which they were added; entries: of the layout's index."""

    def __init__(self, images: Images, *, plain: bool = False) -> None:
        self._images = images
        self._plain = plain
        self.documents: dict[str, bytes] = {}
        self.entries: list[IndexEntry] = []
        self.layers: dict[str, PlannedLayer] = {}
        self.of_image: dict[str, list[PlannedLayer]] = {}

    def add(self, one: Chosen) -> None:
        """An image by all its tags, or without any."""
        for reference in one.references or (None,):
            target = self._images.target(reference) if reference is not None and not one.alone else ""
            if not self._plain and target and self._add_index(target, reference):
                continue
            digest, media_type = self._add_image(one.image, target)
            self._enter(one.image, digest, media_type, reference)

    def _enter(self, image: Image, digest: str, media_type: str, reference: Reference | None) -> None:
        spec = image.spec
        self.entries.append(
            IndexEntry(
                media_type=media_type,
                digest=digest,
                size=len(self.documents[digest]),
                annotations=_names(reference),
                platform=DescriptorPlatform(os=spec.os, architecture=spec.architecture, variant=spec.variant),
            )
        )

    def _add_index(self, digest: str, reference: Reference | None) -> bool:
        """An index with all its images that are here; False if it is none, or one can't be given out as it is."""
        row = self._images.db.one("SELECT image_id FROM image_documents WHERE digest = ? AND kind = 'index'", (digest,))
        if row is None:
            return False
        members = documents.members(self._images, digest)
        found = {manifest: self._images.find(image_id) for manifest, image_id in members.items()}
        if not all(image and self._whole(image, manifest) is not None for manifest, image in found.items()):
            return False
        document = self._images.content.get(digest)
        self.documents[digest] = document
        for attached in documents.of(self._images, row["image_id"], "attached"):
            self.documents[attached] = self._images.content.get(attached)
        for manifest, image in found.items():
            if image is not None:
                self._add_image(image, manifest)
        self.entries.append(
            IndexEntry(
                media_type=parse_index(document).media_type,
                digest=digest,
                size=len(document),
                annotations=_names(reference),
            )
        )
        return True

    def _add_image(self, image: Image, target: str) -> tuple[str, str]:
        """Its config, a manifest and the layers; the manifest's digest and media type."""
        self.documents[image.id] = self._images.content.get(image.id)
        for digest in (target, image.manifest_digest):
            layers = self._whole(image, digest) if digest and not self._plain else None
            if layers is not None:
                document = self._images.content.get(digest)
                break
        else:
            plain = [self._images.layers.get(diff_id) for diff_id in image.diff_ids]
            document = format_document(plain_manifest(self.documents[image.id], plain))
            digest = digest_bytes(document)
            layers = [
                PlannedLayer(
                    digest=layer.diff_id, diff_id=layer.diff_id, size_bytes=layer.tar_bytes, media_type=LAYER_TYPE
                )
                for layer in plain
            ]
        self.documents[digest] = document
        self.of_image.setdefault(image.id, layers)
        self.layers.update({layer.digest: layer for layer in layers})
        return digest, parse_manifest(document).media_type

    def _whole(self, image: Image, digest: str) -> list[PlannedLayer] | None:
        """The layers that a manifest of the image lists; None if one of them can't be given out."""
        if not self._images.content.exists(digest):
            return None
        manifest = parse_manifest(self._images.content.get(digest))
        if manifest.config.digest != image.id or len(manifest.layers) != len(image.diff_ids):
            return None
        layers = []
        for layer, diff_id in zip(manifest.layers, image.diff_ids, strict=True):
            if layer.digest != diff_id and not self._images.layers.originals.has(layer.digest):
                return None
            layers.append(
                PlannedLayer(digest=layer.digest, diff_id=diff_id, size_bytes=layer.size, media_type=layer.media_type)
            )
        return layers


def planned(images: Images, chosen: Sequence[Chosen], *, plain: bool = False) -> Plan:
    """The plan of an archive. plain: no indexes, and all layers as plain tars."""
    plan = Plan(images, plain=plain)
    for one in chosen:
        plan.add(one)
    return plan


def _names(reference: Reference | None) -> dict[str, str]:
    return {IMAGE_NAME: reference.canonical, REF_NAME: reference.tag or ""} if reference is not None else {}
