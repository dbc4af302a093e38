"""The check of images: rows against documents, documents against their digests, names, indexes and layers.

Must never take an image away: one whose config is lost stays in the list, and says what it lacks when it is used.
"""

from __future__ import annotations

import sqlite3
from functools import partial

from tare import errors
from tare.images import documents
from tare.images.images import Images, plain_manifest
from tare.oci.image_spec import ImageSpec, format_document, parse_image_spec, parse_manifest
from tare.storage.fsck import Check, damaged_documents
from tare.values.digest import digest_bytes
from tare.values.reference import parse_reference

_MARK = "it is marked: containers aren't made of it until it is loaded or pulled again"


def check_images(check: Check, images: Images) -> None:
    """All of it; while images come and go."""
    check.told("images")
    with images.lock:
        _check_documents(check, images)
        for row in images.db.all("SELECT * FROM images ORDER BY image_id"):
            _check_image(check, images, row)
        for row in images.db.all("SELECT * FROM image_documents"):
            if not images.content.exists(row["digest"]):
                check.found(
                    "image", row["image_id"], f"its {row['kind']} {row['digest']} is missing",
                    "it is forgotten: names that stand for it lead to the image alone",
                    partial(_forget_document, images, row["digest"]),
                )  # fmt: skip
        for row in images.db.all("SELECT name, suffix FROM image_references"):
            try:
                parse_reference(row["name"] + row["suffix"])
            except errors.TareError as error:
                check.found("name", row["name"] + row["suffix"], str(error), "the name is taken away",
                            partial(_drop_name, images, row["name"], row["suffix"]))  # fmt: skip


def _check_documents(check: Check, images: Images) -> None:
    """Documents that aren't what their names say go first: a good copy can't come in while they are there."""
    for digest, problem in damaged_documents(images.content):
        check.found("document", digest, problem, "it is removed", partial(images.content.delete, digest))
    known = set(images.held_documents())
    for digest in list(images.content.digests()):
        if digest not in known:
            check.found("leftover", digest, "is a document of no image", "it is removed",
                        partial(images.drop_documents, [digest]))  # fmt: skip


def _check_image(check: Check, images: Images, row: sqlite3.Row) -> None:
    image_id = row["image_id"]
    diff_ids = tuple(row["diff_ids"].split())
    spec = _spec(images, image_id)
    if spec is None:
        if not images.layers.damage.of(image_id):
            mark = partial(images.layers.damage.mark, image_id, "its configuration is lost")
            check.found("image", image_id, "its configuration is lost or damaged", _MARK, mark)
    elif tuple(spec.rootfs.diff_ids) != diff_ids:
        check.found("image", image_id, "its row has other layers than its configuration", "the row is set right",
                    partial(_set_layers, images, image_id, spec))  # fmt: skip
        diff_ids = tuple(spec.rootfs.diff_ids)
    lost = [diff_id for diff_id in diff_ids if images.layers.find(diff_id) is None]
    for diff_id in lost:
        check.found("image", image_id, f"its layer {diff_id} is missing: load or pull it again")
    _check_manifest(check, images, row, spec, whole=not lost)
    held = dict(images.layers.holders()).get(f"image:{image_id}", frozenset())
    if held != frozenset(diff_ids):
        check.found("image", image_id, "does not hold its layers: a collection would take them", "it holds them",
                    partial(_hold, images, image_id, diff_ids))  # fmt: skip


def _spec(images: Images, image_id: str) -> ImageSpec | None:
    try:
        return parse_image_spec(images.content.get(image_id))
    except errors.TareError:
        return None


def _check_manifest(check: Check, images: Images, row: sqlite3.Row, spec: ImageSpec | None, *, whole: bool) -> None:
    try:
        manifest = parse_manifest(images.content.get(row["manifest_digest"]))
        if manifest.config.digest == row["image_id"]:
            return
        problem = f"its manifest is of {manifest.config.digest}"
    except errors.TareError:
        problem = "its manifest is lost or damaged"
    apply = partial(_new_manifest, images, row["image_id"], spec) if spec is not None and whole else None
    remedy = "a manifest of its plain layers takes the place" if apply else ""
    check.found("image", row["image_id"], problem, remedy, apply)


def _new_manifest(images: Images, image_id: str, spec: ImageSpec) -> None:
    layers = [images.layers.get(diff_id) for diff_id in spec.rootfs.diff_ids]
    document = format_document(plain_manifest(images.content.get(image_id), layers))
    images.content.put(document)
    with images.db.transaction() as tx:
        tx.run("UPDATE images SET manifest_digest = ? WHERE image_id = ?", (digest_bytes(document), image_id))


def _set_layers(images: Images, image_id: str, spec: ImageSpec) -> None:
    with images.db.transaction() as tx:
        tx.run("UPDATE images SET diff_ids = ? WHERE image_id = ?", (" ".join(spec.rootfs.diff_ids), image_id))


def _hold(images: Images, image_id: str, diff_ids: tuple[str, ...]) -> None:
    with images.db.transaction() as tx:
        digests = documents.manifests(tx, image_id)
        manifests = [images.content.get(digest) for digest in digests if images.content.exists(digest)]
        images.layers.set_root(tx, f"image:{image_id}", diff_ids, documents.originals(manifests, diff_ids))


def _forget_document(images: Images, digest: str) -> None:
    with images.db.transaction() as tx:
        tx.run("DELETE FROM image_documents WHERE digest = ?", (digest,))
        tx.run("UPDATE image_references SET target = '' WHERE target = ?", (digest,))


def _drop_name(images: Images, name: str, suffix: str) -> None:
    with images.db.transaction() as tx:
        tx.run("DELETE FROM image_references WHERE name = ? AND suffix = ?", (name, suffix))
