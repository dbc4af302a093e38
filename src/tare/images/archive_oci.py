"""OCI image layouts: oci-layout, index.json, blobs/sha256/<hex>; manifests of Docker's schema 2 as well.

Must never take a document for another kind than the descriptor that led to it says (CVE-2021-41190), nor a blob whose
size or digest isn't the descriptor's.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tare.errors import InvalidArgument, TareError, Unsupported
from tare.images.archive_image import (
    ArchivedImage,
    ArchivedIndex,
    checked_spec,
    checked_tag,
    format_platform,
    ours,
    says_the_same,
    suits,
)
from tare.images.archive_read import Contents
from tare.images.records import Platform
from tare.oci.image_spec import (
    CONFIG_TYPE,
    DOCKER_CONFIG_TYPE,
    DOCKER_INDEX_TYPE,
    DOCKER_MANIFEST_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    Descriptor,
    Index,
    IndexEntry,
    Manifest,
    parse_document,
    parse_index,
    parse_manifest,
)
from tare.values.digest import digest_bytes, is_digest
from tare.values.reference import Reference

LAYOUT = "oci-layout"
INDEX = "index.json"
IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_MANIFESTS = (MANIFEST_TYPE, DOCKER_MANIFEST_TYPE)
_INDEXES = (INDEX_TYPE, DOCKER_INDEX_TYPE)
_MAX_DEPTH = 4
_MAX_ENTRIES = 10_000


class _Layout(msgspec.Struct, frozen=True, kw_only=True):
    version: str = msgspec.field(name="imageLayoutVersion")


class _Variant(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that an entry of the index leads to."""

    manifest: Manifest
    document: bytes
    platform: Platform | None
    reference: Reference | None
    index: str = ""


def oci_images(contents: Contents, platforms: Sequence[Platform] = ()) -> list[ArchivedImage]:
    """The images of the layout. Of an index for several platforms all that are there, or those for the platforms.

    Of several images with one name, those for the platforms, or for this machine's.
    """
    _check_layout(contents)
    index = parse_index(contents.document(INDEX, "it"))
    _check_media_type(index.media_type, _INDEXES, INDEX)
    variants: list[_Variant] = []
    for entry in index.manifests:
        _collect(contents, entry, _reference(entry), variants, 1)
    if not variants:
        raise InvalidArgument("invalid archive: its index.json holds no image")
    indexes = _indexes(contents, index)
    groups: dict[tuple[Reference | None, str], list[_Variant]] = {}
    for variant in variants:
        groups.setdefault((variant.reference, variant.index), []).append(variant)
    return [
        _image(contents, variant, indexes.get(digest))
        for (name, digest), group in groups.items()
        for variant in _chosen(name, group, platforms)
    ]


def holds_indexes(contents: Contents) -> bool:
    """Whether the layout has an index below its own."""
    entries = parse_index(contents.document(INDEX, "it")).manifests
    return any(entry.media_type in _INDEXES and contents.has(_path(entry.digest)) for entry in entries)


def _indexes(contents: Contents, layout: Index) -> dict[str, ArchivedIndex]:
    """The indexes of a layout, with the documents that they lead to beside images: nested indexes, attestations."""
    found: dict[str, ArchivedIndex] = {}
    for entry in layout.manifests:
        if entry.media_type not in _INDEXES:
            continue
        reference = _reference(entry)
        before = found.get(entry.digest)
        names = (*(before.references if before else ()), *((reference,) if reference else ()))
        attached: dict[str, bytes] = {}
        _attach(contents, parse_index(_blob(contents, entry, "an index")), attached, 1)
        found[entry.digest] = ArchivedIndex(
            document=_blob(contents, entry, "an index"), attached=tuple(attached.values()), references=names
        )
    return found


def _attach(contents: Contents, index: Index, attached: dict[str, bytes], depth: int) -> None:
    for entry in index.manifests:
        if depth > _MAX_DEPTH or len(attached) > _MAX_ENTRIES or not contents.has_document(_path(entry.digest)):
            continue
        if entry.media_type in _INDEXES:
            attached[entry.digest] = _blob(contents, entry, "an index")
            _attach(contents, parse_index(attached[entry.digest]), attached, depth + 1)
            continue
        document = _blob(contents, entry, "an index")
        manifest = parse_manifest(document)
        if manifest.config.media_type in (CONFIG_TYPE, DOCKER_CONFIG_TYPE) and not _is_unknown(entry):
            continue
        attached[entry.digest] = document
        for part in (manifest.config, *manifest.layers):
            if contents.has_document(_path(part.digest)):
                attached[part.digest] = _blob(contents, part, "a manifest")


def _is_unknown(entry: IndexEntry) -> bool:
    """How BuildKit marks attestations."""
    return entry.platform is not None and "unknown" in (entry.platform.os, entry.platform.architecture)


def kept_manifests(contents: Contents) -> dict[str, tuple[Manifest, bytes]]:
    """Of an archive that is a layout too: each image's manifest, by the image's id."""
    if not (contents.has(LAYOUT) and contents.has(INDEX)):
        return {}
    variants: list[_Variant] = []
    for entry in parse_index(contents.document(INDEX, "it")).manifests:
        if contents.has(_path(entry.digest)):
            _collect(contents, entry, None, variants, 1)
    return {variant.manifest.config.digest: (variant.manifest, variant.document) for variant in variants}


def _check_layout(contents: Contents) -> None:
    layout = parse_document(contents.document(LAYOUT, "it"), _Layout, LAYOUT)
    if not layout.version.startswith("1."):
        raise Unsupported(f"image layout version {layout.version[:32]!r} is not supported by Tare")


def _reference(entry: IndexEntry) -> Reference | None:
    """The name that annotations give: containerd's is whole; the layout's may be a mere tag, which names nothing."""
    whole = entry.annotations.get(IMAGE_NAME)
    if whole:
        return checked_tag(whole)
    text = entry.annotations.get(REF_NAME, "")
    if ":" not in text:
        return None
    try:
        return checked_tag(text)
    except TareError:
        return None  # any text is allowed there (annotations.md)


def _collect(
    contents: Contents,
    entry: IndexEntry,
    reference: Reference | None,
    variants: list[_Variant],
    depth: int,
    within: str = "",
) -> None:
    """Adds the manifests below an entry. Those that the archive doesn't hold are other platforms', left out of it."""
    if depth > _MAX_DEPTH or len(variants) > _MAX_ENTRIES:
        raise InvalidArgument("invalid archive: its index is nested too deeply or too long")
    if depth > 1 and not contents.has(_path(entry.digest)):
        return
    if entry.media_type in _INDEXES:
        index = parse_index(_blob(contents, entry, "an index"))
        _check_media_type(index.media_type, (entry.media_type,), entry.digest)
        for below in index.manifests:
            _collect(contents, below, reference, variants, depth + 1, within or entry.digest)
        return
    if entry.media_type not in _MANIFESTS:
        raise InvalidArgument(f"invalid archive: {entry.digest} has the media type {entry.media_type[:100]!r}")
    document = _blob(contents, entry, "an index")
    manifest = parse_manifest(document)
    _check_media_type(manifest.media_type, (entry.media_type,), entry.digest)
    if manifest.config.media_type not in (CONFIG_TYPE, DOCKER_CONFIG_TYPE):
        return  # an attestation or another artifact (manifest.md, "Guidelines for Artifact Usage")
    platform = entry.platform
    if _is_unknown(entry) or (within and platform is not None and platform.os not in ("", "linux")):
        return
    variants.append(
        _Variant(
            manifest=manifest,
            document=document,
            reference=reference,
            index=within,
            platform=Platform(os=platform.os, architecture=platform.architecture, variant=platform.variant)
            if platform is not None and platform.architecture
            else None,
        )
    )


def _chosen(name: Reference | None, group: list[_Variant], platforms: Sequence[Platform]) -> list[_Variant]:
    wanted = platforms or (ours(),)
    if group[0].index and not platforms:
        return sorted(group, key=lambda one: one.platform is not None and not suits(one.platform, ours()))
    fitting = [
        variant for variant in group if variant.platform is None or any(suits(variant.platform, one) for one in wanted)
    ]
    if fitting:
        return fitting
    if len(group) == 1 and not platforms:
        return group
    shown = name.familiar if name else "the archive"
    raise InvalidArgument(f"{shown} has no image for {', '.join(format_platform(one) for one in wanted)}")


def _image(contents: Contents, variant: _Variant, index: ArchivedIndex | None) -> ArchivedImage:
    manifest = variant.manifest
    config = _blob(contents, manifest.config, "a manifest")
    layers = []
    for descriptor in manifest.layers:
        layer = contents.layer(_path(descriptor.digest), "a manifest")
        _check_blob(descriptor, layer.digest, layer.size)
        layers.append(layer)
    spec = checked_spec(config, layers)
    return ArchivedImage(
        config=config,
        spec=spec,
        manifest=variant.document if says_the_same(manifest, config, layers) else None,
        references=(variant.reference,) if variant.reference else (),
        index=index,
    )


def _blob(contents: Contents, descriptor: Descriptor, asked_by: str) -> bytes:
    data = contents.document(_path(descriptor.digest), asked_by)
    _check_blob(descriptor, digest_bytes(data), len(data))
    return data


def _check_blob(descriptor: Descriptor, digest: str, size: int) -> None:
    if digest != descriptor.digest:  # a link stood under the blob's name
        raise InvalidArgument(f"invalid archive: {descriptor.digest} has the digest {digest}")
    if size != descriptor.size:
        raise InvalidArgument(f"invalid archive: {descriptor.digest} has {size} bytes, not {descriptor.size}")


def _path(digest: str) -> str:
    if not is_digest(digest):
        raise InvalidArgument(f"invalid digest: {digest[:100]!r}")
    return f"blobs/sha256/{digest[7:]}"


def _check_media_type(found: str, allowed: Sequence[str], what: str) -> None:
    if found not in allowed:
        raise InvalidArgument(f"invalid archive: {what} says that it is {found[:100]!r}")
