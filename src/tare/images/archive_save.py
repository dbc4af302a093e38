"""`save`: images as one tar that is an OCI image layout and a docker-archive at once, as Docker writes it since 25.

Must never depend on the clock or the machine: the same images give the same bytes.

    oci-layout  index.json  manifest.json  repositories  blobs/sha256/<hex>
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from tare.errors import Internal, InvalidArgument, NotFound
from tare.images.archive_image import format_platform, suits
from tare.images.archive_oci import IMAGE_NAME, INDEX, LAYOUT, REF_NAME
from tare.images.images import Images, name_of
from tare.images.records import Image, Platform
from tare.images.resolve import is_id_of, resolve
from tare.oci.image_spec import (
    LAYER_TYPE,
    DescriptorPlatform,
    Index,
    IndexEntry,
    format_document,
    parse_manifest,
)
from tare.storage import tar_format as fmt
from tare.storage.hashing import ThreadedDigest
from tare.storage.layers import Layer
from tare.storage.tar_format import Entry
from tare.storage.tar_writer import END, format_entry, padding
from tare.values.digest import digest_bytes
from tare.values.reference import Reference, parse_reference

Write = Callable[[bytes], object]


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """An image to save, with the tags that go along."""

    image: Image
    references: tuple[Reference, ...]


def choose(images: Images, names: Sequence[str], platforms: Sequence[Platform] = ()) -> list[Chosen]:
    """The images that a user names: an id goes without tags, a name without a tag brings all that the repository has.

    Raises NotFound, InvalidArgument with Docker's texts.
    """
    if not names:
        raise InvalidArgument("no images to save")
    found: dict[str, dict[str, Reference]] = {}
    for name in names:
        for image, reference in _named(images, name):
            if platforms and not any(suits(_platform(image), wanted) for wanted in platforms):
                shown = ", ".join(format_platform(wanted) for wanted in platforms)
                raise NotFound(f"image with reference {name} was found but does not provide the platform ({shown})")
            tags = found.setdefault(image.id, {})
            if reference is not None:
                tags[reference.canonical] = reference
    return [
        Chosen(image=images.get(image_id), references=tuple(tags[text] for text in sorted(tags)))
        for image_id, tags in found.items()
    ]


def _named(images: Images, name: str) -> list[tuple[Image, Reference | None]]:
    image = _whole_repository(images, name)
    if image:
        return image
    only = resolve(images, name)
    if is_id_of(only.id, name):
        return [(only, None)]
    reference = parse_reference(name)
    if reference.digest is not None:
        return [(only, None)]
    return [(only, reference.with_default_tag())]


def _whole_repository(images: Images, name: str) -> list[tuple[Image, Reference | None]]:
    try:
        reference = parse_reference(name)
    except InvalidArgument:
        return []
    if reference.tag is not None or reference.digest is not None:
        return []
    rows = images.db.all(
        "SELECT suffix, image_id FROM image_references WHERE name = ? AND suffix LIKE ':%' ORDER BY suffix",
        (name_of(reference),),
    )
    return [(images.get(row["image_id"]), reference._replace(tag=row["suffix"][1:])) for row in rows]


def _platform(image: Image) -> Platform:
    return Platform(os=image.spec.os, architecture=image.spec.architecture, variant=image.spec.variant)


def save(
    images: Images,
    chosen: Sequence[Chosen],
    write: Write,
    *,
    without: Collection[str] = (),
    notes: Mapping[str, bytes] = {},
) -> None:
    """Writes the archive. Each layer is written once, checked against its digest on the way.

    without: diff IDs of layers that are left out. notes: further documents by name.
    """
    diff_ids = list(dict.fromkeys(diff_id for one in chosen for diff_id in one.image.diff_ids))
    with images.layers.lease(diff_ids):
        layers = {diff_id: images.layers.get(diff_id) for diff_id in diff_ids}
        blobs: dict[str, bytes] = {}
        entries: list[IndexEntry] = []
        for one in chosen:
            config, manifest = _documents(images, one.image)
            blobs[one.image.id], blobs[digest_bytes(manifest)] = config, manifest
            entries += _index_entries(one, manifest)
        _document(write, LAYOUT, msgspec.json.encode({"imageLayoutVersion": "1.0.0"}))
        _document(write, INDEX, format_document(Index(manifests=entries)))
        _document(write, "manifest.json", _docker_manifest(chosen, layers))
        _document(write, "repositories", _repositories(chosen))
        for name, data in notes.items():
            _document(write, name, data)
        for directory in (b"blobs/", b"blobs/sha256/"):
            write(format_entry(Entry(name=directory, kind=fmt.DIRECTORY, mode=0o755)))
        for digest, data in sorted(blobs.items()):
            _document(write, _blob_path(digest), data)
        for diff_id in diff_ids:
            if diff_id not in without:
                _layer(images, layers[diff_id], write)
        write(END)


def _documents(images: Images, image: Image) -> tuple[bytes, bytes]:
    return images.content.get(image.id), images.content.get(image.manifest_digest)


def _index_entries(one: Chosen, manifest: bytes) -> list[IndexEntry]:
    platform = DescriptorPlatform(
        os=one.image.spec.os, architecture=one.image.spec.architecture, variant=one.image.spec.variant
    )
    annotations = [
        {IMAGE_NAME: reference.canonical, REF_NAME: reference.tag or ""} for reference in one.references
    ] or [{}]
    return [
        IndexEntry(
            media_type=parse_manifest(manifest).media_type,
            digest=digest_bytes(manifest),
            size=len(manifest),
            annotations=each,
            platform=platform,
        )
        for each in annotations
    ]


def _docker_manifest(chosen: Sequence[Chosen], layers: dict[str, Layer]) -> bytes:
    saved = {one.image.id for one in chosen}
    items = []
    for one in chosen:
        item: dict[str, object] = {
            "Config": _blob_path(one.image.id),
            "RepoTags": [reference.familiar for reference in one.references] or None,
            "Layers": [_blob_path(diff_id) for diff_id in one.image.diff_ids],
            "LayerSources": {
                diff_id: {"mediaType": LAYER_TYPE, "size": layers[diff_id].tar_bytes, "digest": diff_id}
                for diff_id in one.image.diff_ids
            },
        }
        if one.image.parent_id in saved:
            item["Parent"] = one.image.parent_id
        items.append(item)
    return msgspec.json.encode(items)


def _repositories(chosen: Sequence[Chosen]) -> bytes:
    """What Docker before 1.10 read; other tools still look for it."""
    made: dict[str, dict[str, str]] = {}
    for one in chosen:
        for reference in one.references:
            top = one.image.diff_ids[-1] if one.image.diff_ids else one.image.id
            made.setdefault(reference.repository, {})[reference.tag or ""] = top.removeprefix("sha256:")
    return msgspec.json.encode(made, order="sorted")


def _document(write: Write, name: str, data: bytes) -> None:
    write(format_entry(Entry(name=name.encode(), kind=fmt.REGULAR, mode=0o644, size=len(data))))
    write(data + padding(len(data)))


def _layer(images: Images, layer: Layer, write: Write) -> None:
    name = _blob_path(layer.diff_id).encode()
    write(format_entry(Entry(name=name, kind=fmt.REGULAR, mode=0o644, size=layer.tar_bytes)))
    digest = ThreadedDigest()
    try:
        for chunk in digest.passing(images.layers.reassemble(layer.diff_id)):
            write(chunk)
        found = digest.finish()
    finally:
        digest.close()
    if (found, digest.total) != (layer.diff_id, layer.tar_bytes):
        raise Internal(f"layer {layer.diff_id} is damaged: its archive now has the digest {found}")
    write(padding(layer.tar_bytes))


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
