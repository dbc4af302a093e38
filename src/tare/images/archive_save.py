"""`save`: images as one tar that is an OCI image layout and a docker-archive at once, as Docker writes it since 25.

Must never depend on the clock or the machine: the same images give the same bytes.

    oci-layout  index.json  manifest.json  repositories  blobs/sha256/<hex>
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from tare.errors import Internal, InvalidArgument, NotFound
from tare.images.archive_oci import INDEX, LAYOUT
from tare.images.archive_plan import Chosen as Chosen
from tare.images.archive_plan import Plan, PlannedLayer, planned
from tare.images.documents import for_platform
from tare.images.images import Images, name_of
from tare.images.platforms import format_platform
from tare.images.records import Image, Platform
from tare.images.resolve import is_id_of, resolve
from tare.oci.image_spec import Index, format_document
from tare.storage import tar_format as fmt
from tare.storage.hashing import ThreadedDigest
from tare.storage.tar_format import Entry
from tare.storage.tar_writer import END, format_entry, padding
from tare.values.reference import Reference, parse_reference

Write = Callable[[bytes], object]


def choose(images: Images, names: Sequence[str], platforms: Sequence[Platform] = ()) -> list[Chosen]:
    """The images that a user names: an id goes without tags, a name without a tag brings all that the repository has.

    Raises NotFound, InvalidArgument with Docker's texts.
    """
    if not names:
        raise InvalidArgument("no images to save")
    found: dict[str, Chosen] = {}
    for name in names:
        for image, reference in _named(images, name):
            variants = _for_platforms(images, image, platforms, name) if platforms else [image]
            for variant in variants:
                tags = set(found[variant.id].references) if variant.id in found else set()
                if reference is not None:
                    tags.add(reference)
                ordered = tuple(sorted(tags, key=lambda one: one.canonical))
                found[variant.id] = Chosen(image=variant, references=ordered, alone=len(variants) == len(platforms))
    return list(found.values())


def _for_platforms(images: Images, image: Image, platforms: Sequence[Platform], name: str) -> list[Image]:
    """The image, or those of its index, for each of the platforms."""
    found = []
    for wanted in platforms:
        try:
            found.append(for_platform(images, image, wanted, name))
        except NotFound:
            shown = ", ".join(format_platform(one) for one in platforms)
            raise NotFound(
                f"image with reference {name} was found but does not provide the platform ({shown})"
            ) from None
    return list({one.id: one for one in found}.values())


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


def save(
    images: Images,
    chosen: Sequence[Chosen],
    write: Write,
    *,
    without: Collection[str] = (),
    notes: Mapping[str, bytes] = {},
) -> None:
    """Writes the archive. Each layer is written once, checked against its digest on the way.

    without: digests of layers that are left out. notes: further documents by name.
    """
    diff_ids = list(dict.fromkeys(diff_id for one in chosen for diff_id in one.image.diff_ids))
    with images.layers.lease(diff_ids, what="save", reads=True) as lease:
        plan = planned(images, chosen)
        for layer in plan.layers.values():
            held = images.layers.hold(layer.diff_id, lease)
            if held is None or (layer.digest != layer.diff_id and not images.layers.hold_original(layer.digest, lease)):
                raise NotFound(f"layer {layer.digest} was removed")
        _document(write, LAYOUT, msgspec.json.encode({"imageLayoutVersion": "1.0.0"}))
        _document(write, INDEX, format_document(Index(manifests=plan.entries)))
        _document(write, "manifest.json", _docker_manifest(chosen, plan))
        _document(write, "repositories", _repositories(chosen))
        for name, data in notes.items():
            _document(write, name, data)
        for directory in (b"blobs/", b"blobs/sha256/"):
            write(format_entry(Entry(name=directory, kind=fmt.DIRECTORY, mode=0o755)))
        for digest, data in sorted(plan.documents.items()):
            _document(write, _blob_path(digest), data)
        for layer in plan.layers.values():
            if layer.digest not in without:
                _layer(images, layer, write)
        write(END)


def _docker_manifest(chosen: Sequence[Chosen], plan: Plan) -> bytes:
    saved = {one.image.id for one in chosen}
    items = []
    for one in chosen:
        item: dict[str, object] = {
            "Config": _blob_path(one.image.id),
            "RepoTags": [reference.familiar for reference in one.references] or None,
            "Layers": [_blob_path(layer.digest) for layer in plan.of_image[one.image.id]],
            "LayerSources": {
                layer.diff_id: {"mediaType": layer.media_type, "size": layer.size_bytes, "digest": layer.digest}
                for layer in plan.of_image[one.image.id]
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


def _layer(images: Images, layer: PlannedLayer, write: Write) -> None:
    name = _blob_path(layer.digest).encode()
    write(format_entry(Entry(name=name, kind=fmt.REGULAR, mode=0o644, size=layer.size_bytes)))
    if layer.digest != layer.diff_id:
        for chunk in images.layers.originals.open(layer.digest):
            write(chunk)
        write(padding(layer.size_bytes))
        return
    digest = ThreadedDigest()
    try:
        for chunk in digest.passing(images.layers.reassemble(layer.diff_id)):
            write(chunk)
        found = digest.finish()
    finally:
        digest.close()
    if (found, digest.total) != (layer.diff_id, layer.size_bytes):
        raise Internal(f"layer {layer.diff_id} is damaged: its archive now has the digest {found}")
    write(padding(layer.size_bytes))


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
