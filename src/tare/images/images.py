"""The engine's images: records, names and their documents in one place. The verbs stand beside, one a file.

Must never acknowledge an image before its layers, documents and rows are on the disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache

from tare import faults
from tare.errors import NotFound, TareError
from tare.images import documents, schema
from tare.images.moves import record_move
from tare.images.records import Image
from tare.oci.image_spec import (
    CONFIG_TYPE,
    LAYER_TYPE,
    Descriptor,
    ImageSpec,
    Manifest,
    RootFS,
    format_document,
    parse_image_spec,
)
from tare.storage.content import Content
from tare.storage.damage import clear
from tare.storage.database import Database, Transaction
from tare.storage.layers import Layer, Layers
from tare.values.digest import digest_bytes
from tare.values.reference import Reference, parse_reference
from tare.values.timestamps import NEVER_NS, now_ns, parse_rfc3339, storable

_NO_SPEC = ImageSpec(architecture="", os="", rootfs=RootFS())


class Images:
    """Records of all images. Every method may be called from any thread; look-ups are cheap."""

    def __init__(self, db: Database, content: Content, layers: Layers) -> None:
        self.db = db
        self.content = content
        self.layers = layers
        db.migrate("images", schema.STEPS)
        # Held while documents and rows change together: a removal may not take a document that a commit just found.
        self.lock = threading.RLock()
        self._undeleted: set[str] = set()  # documents whose deletion failed: it is tried again with the next one
        self._spec = lru_cache(512)(self._read_spec)
        self.repair()

    def get(self, image_id: str) -> Image:
        image = self.find(image_id)
        if image is None:
            raise NotFound(f"No such image: {image_id}")
        return image

    def find(self, image_id: str) -> Image | None:
        row = self.db.one("SELECT * FROM images WHERE image_id = ?", (image_id,))
        return self._image(row) if row else None

    def all(self) -> list[Image]:
        """Every image, newest first."""
        names: dict[str, list[tuple[str, str]]] = {}
        for row in self.db.all("SELECT name, suffix, image_id FROM image_references"):
            names.setdefault(row["image_id"], []).append((row["name"], row["suffix"]))
        rows = self.db.all("SELECT * FROM images ORDER BY created_ns DESC, image_id")
        holders = documents.holders(self.db)
        return [self._image(row, names.get(row["image_id"], []), holders.get(row["image_id"], ())) for row in rows]

    def children(self, image_id: str) -> list[str]:
        return [row["image_id"] for row in self.db.all("SELECT image_id FROM images WHERE parent_id = ?", (image_id,))]

    def references(self, image_id: str) -> list[Reference]:
        """All names of an image, tags and digests, in the order of their text."""
        found = (_reference(name, suffix) for name, suffix in self._names(image_id))
        return sorted(found, key=lambda reference: reference.canonical)

    def referred(self, reference: Reference) -> str | None:
        """The id of the image that bears this name (with its tag, else its digest)."""
        row = self.db.one(
            "SELECT image_id FROM image_references WHERE name = ? AND suffix = ?",
            (name_of(reference), suffix_of(reference)),
        )
        return row["image_id"] if row else None

    def record(
        self,
        spec: ImageSpec,
        *,
        why: str,
        parent_id: str | None = None,
        previous_id: str | None = None,
        reference: Reference | None = None,
    ) -> Image:
        """Writes the documents and the row of an image whose layers a lease of the caller holds; names it.

        why: the verb, for the reflog.
        """
        references = (reference,) if reference is not None else ()
        return self.record_document(
            format_document(spec), why=why, parent_id=parent_id, previous_id=previous_id, references=references
        )

    def record_document(
        self,
        document: bytes,
        *,
        why: str,
        manifest: bytes | None = None,
        parent_id: str | None = None,
        previous_id: str | None = None,
        references: Sequence[Reference] = (),
        target: str = "",
        along: Callable[[Transaction], None] | None = None,
    ) -> Image:
        """The same for a config that came from elsewhere, byte by byte; manifest: its own, if it has one.

        An image that is there already keeps the parent and the manifest that it has, and gets this one beside it; the
        names then stand for this one. Compressed layers that a manifest lists are kept with the image, if they are
        here. target: the index that the names stand for. along: done in the transaction, before the names are set.
        """
        spec = parse_image_spec(document)
        layers = [self.layers.get(diff_id) for diff_id in spec.rootfs.diff_ids]
        with self.lock, ExitStack() as undo:
            present = self.find(digest_bytes(document))
            image_id = self._put(document, undo)
            given = self._put(manifest, undo) if manifest else ""
            if present is not None:
                manifest_digest = present.manifest_digest
            else:
                manifest_digest = given or self._put(format_document(plain_manifest(document, layers)), undo)
            faults.point("images.record.content")
            size_bytes = sum(layer.size_bytes for layer in layers)
            with self.db.transaction() as tx:
                _insert(tx, (image_id, manifest_digest, parent_id, previous_id), spec, size_bytes)
                if given and given != manifest_digest:
                    target = target or given
                    documents.add(tx, image_id, given, "manifest")
                manifests = [self.content.get(digest) for digest in documents.manifests(tx, image_id)]
                originals = documents.originals(manifests, spec.rootfs.diff_ids)
                self.layers.set_root(tx, f"image:{image_id}", spec.rootfs.diff_ids, originals)
                if along is not None:
                    along(tx)
                clear(tx, image_id)
                for reference in references:
                    set_reference(tx, reference, image_id, why=why, target=target)
            undo.pop_all()
            faults.point("images.record.done")
        return self.get(image_id)

    def record_index(
        self,
        document: bytes,
        members: Mapping[str, str],
        main_id: str,
        *,
        why: str,
        attached: Sequence[bytes] = (),
        references: Sequence[Reference] = (),
        along: Callable[[Transaction], None] | None = None,
    ) -> Image:
        """Keeps an index whole with those of its images that are here, which live as long as the main one.

        members: ids of recorded images by their manifests' digests. attached: documents that belong to it beside its
        images. references: names that stand for the index, and lead to the main image. along: see `record_document`.
        """
        with self.lock, ExitStack() as undo:
            digest = self._put(document, undo)
            others = [self._put(one, undo) for one in attached]
            faults.point("images.index.content")
            with self.db.transaction() as tx:
                documents.add(tx, main_id, digest, "index")
                for other in others:
                    documents.add(tx, main_id, other, "attached")
                for manifest_digest, image_id in members.items():
                    documents.add_member(tx, digest, manifest_digest, image_id)
                if along is not None:
                    along(tx)
                for reference in references:
                    set_reference(tx, reference, main_id, why=why, target=digest)
            undo.pop_all()
            faults.point("images.index.done")
        return self.get(main_id)

    def target(self, reference: Reference) -> str:
        """The digest of the manifest or index that a name stands for, "" for its image's own manifest."""
        row = self.db.one(
            "SELECT target FROM image_references WHERE name = ? AND suffix = ?",
            (name_of(reference), suffix_of(reference)),
        )
        return row["target"] if row else ""

    def _put(self, document: bytes, undo: ExitStack) -> str:
        """Stores a document; if it is new, `undo` takes it back."""
        digest = digest_bytes(document)
        if not self.content.exists(digest):
            undo.callback(self._delete_document, digest)
        return self.content.put(document)

    def repair(self) -> list[str]:
        """Deletes documents that no image has, as a crash may leave them; returns a line for each."""
        with self.lock:
            gone = self.drop_documents(self.content.digests())
        return [f"removed unreferred document {digest}" for digest in gone]

    def drop_documents(self, digests: Iterable[str]) -> list[str]:
        """Deletes those of the documents that no image has; returns their digests."""
        known = self.held_documents()
        gone = [digest for digest in dict.fromkeys([*digests, *self._undeleted]) if digest not in known]
        for digest in gone:
            self._delete_document(digest)
        return gone

    def _delete_document(self, digest: str) -> None:
        """A disk that is too full even for that is no reason to fail."""
        try:
            self.content.delete(digest)
            self._undeleted.discard(digest)
        except OSError:
            self._undeleted.add(digest)

    def delete_leftovers(self) -> None:
        """Tries again to delete what could not be deleted."""
        if self._undeleted:
            with self.lock:
                self.drop_documents(())

    def held_documents(self) -> set[str]:
        """The digests of all documents that images have."""
        known: set[str] = set()
        for row in self.db.all("SELECT image_id, manifest_digest FROM images"):
            known.update((row["image_id"], row["manifest_digest"]))
        known.update(row["digest"] for row in self.db.all("SELECT digest FROM image_documents"))
        return known

    def _names(self, image_id: str) -> list[tuple[str, str]]:
        rows = self.db.all("SELECT name, suffix FROM image_references WHERE image_id = ?", (image_id,))
        return [(row["name"], row["suffix"]) for row in rows]

    def _read_spec(self, image_id: str) -> ImageSpec:
        return parse_image_spec(self.content.get(image_id))

    def _spec_or_damage(self, image_id: str) -> tuple[ImageSpec, str]:
        """An image without its configuration is still one that can be listed and removed."""
        try:
            return self._spec(image_id), ""
        except TareError as error:
            return _NO_SPEC, f"its configuration is lost: {error}"

    def _image(
        self,
        row: sqlite3.Row,
        names: Iterable[tuple[str, str]] | None = None,
        part_of: tuple[str, ...] | None = None,
    ) -> Image:
        if names is None:
            names = self._names(row["image_id"])
        if part_of is None:
            part_of = documents.holders(self.db, row["image_id"]).get(row["image_id"], ())
        references = [_reference(name, suffix) for name, suffix in names]
        spec, damaged = self._spec_or_damage(row["image_id"])
        return Image(
            id=row["image_id"],
            manifest_digest=row["manifest_digest"],
            parent_id=row["parent_id"],
            previous_id=row["previous_id"],
            diff_ids=tuple(row["diff_ids"].split()),
            size_bytes=row["size_bytes"],
            created_ns=row["created_ns"],
            last_tagged_ns=row["last_tagged_ns"],
            repo_tags=_sorted(reference for reference in references if reference.tag),
            repo_digests=_sorted(reference for reference in references if not reference.tag),
            spec=spec,
            part_of=part_of,
            damaged=damaged,
        )


def _insert(tx: Transaction, ids: tuple[str, str, str | None, str | None], spec: ImageSpec, size_bytes: int) -> None:
    """An image's row, unless there is one. ids: its own, its manifest's, its parent's, its predecessor's."""
    created_ns = storable(parse_rfc3339(spec.created)) if spec.created else NEVER_NS
    tx.run(
        "INSERT OR IGNORE INTO images (image_id, manifest_digest, parent_id, previous_id, diff_ids,"
        " size_bytes, created_ns, last_tagged_ns) VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
        (*ids, " ".join(spec.rootfs.diff_ids), size_bytes, created_ns),
    )


def plain_manifest(document: bytes, layers: Sequence[Layer]) -> Manifest:
    """The manifest of a config over uncompressed layers: the same for the same image."""
    return Manifest(
        config=Descriptor(media_type=CONFIG_TYPE, digest=digest_bytes(document), size=len(document)),
        layers=[Descriptor(media_type=LAYER_TYPE, digest=layer.diff_id, size=layer.tar_bytes) for layer in layers],
    )


def name_of(reference: Reference) -> str:
    return f"{reference.domain}/{reference.path}"


def suffix_of(reference: Reference) -> str:
    """How a name's row is told from its sisters: the digest, which is the stricter, wins over the tag."""
    if reference.digest is not None:
        return f"@{reference.digest}"
    return f":{reference.with_default_tag().tag}"


def set_reference(tx: Transaction, reference: Reference, image_id: str, *, why: str, target: str = "") -> None:
    """Within a transaction: the name belongs to this image from now on, whoever had it. why: the verb.

    target: the manifest or index that it stands for, if not the image's own manifest.
    """
    record_move(tx, name_of(reference), suffix_of(reference), image_id, why)
    tx.run(
        "INSERT OR REPLACE INTO image_references (name, suffix, image_id, target) VALUES (?, ?, ?, ?)",
        (name_of(reference), suffix_of(reference), image_id, target),
    )
    tx.run("UPDATE images SET last_tagged_ns = ? WHERE image_id = ?", (now_ns(), image_id))


def drop_reference(tx: Transaction, reference: Reference, *, why: str) -> int:
    record_move(tx, name_of(reference), suffix_of(reference), None, why)
    return tx.run(
        "DELETE FROM image_references WHERE name = ? AND suffix = ?", (name_of(reference), suffix_of(reference))
    )


def _reference(name: str, suffix: str) -> Reference:
    return parse_reference(name + suffix)


def _sorted(references: Iterable[Reference]) -> tuple[str, ...]:
    return tuple(sorted(reference.familiar for reference in references))
