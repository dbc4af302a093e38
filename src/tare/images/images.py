"""The engine's images: records, names and their documents in one place. The verbs stand beside, one a file.

Must never acknowledge an image before its layers, documents and rows are on the disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import lru_cache

from tare import faults
from tare.errors import NotFound
from tare.images import schema
from tare.images.moves import record_move
from tare.images.records import Image
from tare.oci.image_spec import (
    CONFIG_TYPE,
    LAYER_TYPE,
    Descriptor,
    ImageSpec,
    Manifest,
    format_document,
    parse_image_spec,
)
from tare.storage.content import Content
from tare.storage.database import Database, Transaction
from tare.storage.layers import Layer, Layers
from tare.values.digest import digest_bytes
from tare.values.reference import Reference, parse_reference
from tare.values.timestamps import now_ns, parse_rfc3339


class Images:
    """Records of all images. Every method may be called from any thread; look-ups are cheap."""

    def __init__(self, db: Database, content: Content, layers: Layers) -> None:
        self.db = db
        self.content = content
        self.layers = layers
        db.migrate("images", schema.STEPS)
        # Held while documents and rows change together: a removal may not take a document that a commit just found.
        self.lock = threading.RLock()
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
        return [self._image(row, names.get(row["image_id"], [])) for row in rows]

    def children(self, image_id: str) -> list[str]:
        return [row["image_id"] for row in self.db.all("SELECT image_id FROM images WHERE parent_id = ?", (image_id,))]

    def references(self, image_id: str) -> list[Reference]:
        """All names of an image, tags and digests, in the order of their text."""
        return sorted(_reference(name, suffix) for name, suffix in self._names(image_id))

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
        along: Callable[[Transaction], None] | None = None,
    ) -> Image:
        """The same for a config that came from elsewhere, byte by byte; manifest: its own, if it has one.

        An image that is there already keeps the manifest and the parent that it has. along: done in the transaction,
        before the names are set.
        """
        spec = parse_image_spec(document)
        layers = [self.layers.get(diff_id) for diff_id in spec.rootfs.diff_ids]
        with self.lock, ExitStack() as undo:
            present = self.find(digest_bytes(document))
            image_id = self._put(document, undo)
            if present is None:
                manifest_digest = self._put(manifest or format_document(plain_manifest(document, layers)), undo)
            else:
                manifest_digest = present.manifest_digest
            faults.point("images.record.content")
            with self.db.transaction() as tx:
                self.layers.set_root(tx, f"image:{image_id}", spec.rootfs.diff_ids)
                tx.run(
                    "INSERT OR IGNORE INTO images (image_id, manifest_digest, parent_id, previous_id, diff_ids,"
                    " size_bytes, created_ns, last_tagged_ns) VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                    (
                        image_id,
                        manifest_digest,
                        parent_id,
                        previous_id,
                        " ".join(spec.rootfs.diff_ids),
                        sum(layer.size_bytes for layer in layers),
                        parse_rfc3339(spec.created) if spec.created else 0,
                    ),
                )
                if along is not None:
                    along(tx)
                for reference in references:
                    set_reference(tx, reference, image_id, why=why)
            undo.pop_all()
            faults.point("images.record.done")
        return self.get(image_id)

    def _put(self, document: bytes, undo: ExitStack) -> str:
        """Stores a document; if it is new, `undo` takes it back."""
        digest = digest_bytes(document)
        if not self.content.exists(digest):
            undo.callback(self.content.delete, digest)
        return self.content.put(document)

    def repair(self) -> list[str]:
        """Deletes documents that no image has, as a crash may leave them; returns a line for each."""
        changed = []
        with self.lock:
            known: set[str] = set()
            for row in self.db.all("SELECT image_id, manifest_digest FROM images"):
                known.update((row["image_id"], row["manifest_digest"]))
            for digest in list(self.content.digests()):
                if digest not in known:
                    self.content.delete(digest)
                    changed.append(f"removed unreferred document {digest}")
        return changed

    def _names(self, image_id: str) -> list[tuple[str, str]]:
        rows = self.db.all("SELECT name, suffix FROM image_references WHERE image_id = ?", (image_id,))
        return [(row["name"], row["suffix"]) for row in rows]

    def _read_spec(self, image_id: str) -> ImageSpec:
        return parse_image_spec(self.content.get(image_id))

    def _image(self, row: sqlite3.Row, names: Iterable[tuple[str, str]] | None = None) -> Image:
        if names is None:
            names = self._names(row["image_id"])
        references = [_reference(name, suffix) for name, suffix in names]
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
            spec=self._spec(row["image_id"]),
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


def set_reference(tx: Transaction, reference: Reference, image_id: str, *, why: str) -> None:
    """Within a transaction: the name belongs to this image from now on, whoever had it. why: the verb."""
    record_move(tx, name_of(reference), suffix_of(reference), image_id, why)
    tx.run(
        "INSERT OR REPLACE INTO image_references (name, suffix, image_id) VALUES (?, ?, ?)",
        (name_of(reference), suffix_of(reference), image_id),
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
