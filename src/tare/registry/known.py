"""What is known of layers in registries: which compressed blob a layer is where; manifests as they came or went.

Must never hold a blob's digest for a layer that wasn't computed here from both, nor keep anything alive.

    registry_blobs                  a layer's tar, compressed, in a repository of a registry
      diff_id, digest  TEXT           of the tar; of the blob
      size_bytes       INTEGER        of the blob
      media_type       TEXT
      domain, path     TEXT           where it was seen last
      seen_ns          INTEGER
      PRIMARY KEY (diff_id, digest, domain, path)

    registry_manifests              of an image that was pulled or pushed: its manifest, byte by byte
      image_id, digest TEXT           PRIMARY KEY
      document         BLOB
      seen_ns          INTEGER
"""

from __future__ import annotations

import time

import msgspec

from tare.registry.records import HUB_DOMAIN
from tare.storage.database import Database

STEPS = (
    """
    CREATE TABLE registry_blobs (
        diff_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        domain TEXT NOT NULL,
        path TEXT NOT NULL,
        seen_ns INTEGER NOT NULL,
        PRIMARY KEY (diff_id, digest, domain, path)
    ) WITHOUT ROWID;
    CREATE TABLE registry_manifests (
        image_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        document BLOB NOT NULL,
        seen_ns INTEGER NOT NULL,
        PRIMARY KEY (image_id, digest)
    ) WITHOUT ROWID;
    """,
)
_MOST_PLACES = 50
_MOST_MANIFESTS = 8


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's blob in a repository."""

    diff_id: str
    digest: str
    size_bytes: int
    media_type: str
    domain: str = HUB_DOMAIN
    path: str = ""


class Known:
    """Both tables. Every method may be called from any thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        db.migrate("registry", STEPS)

    def saw_blob(self, place: Place) -> None:
        """A blob was fetched from, sent to or found in a repository, and is this layer."""
        with self._db.transaction() as tx:
            tx.run(
                "INSERT OR REPLACE INTO registry_blobs VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    place.diff_id,
                    place.digest,
                    place.size_bytes,
                    place.media_type,
                    place.domain,
                    place.path,
                    time.time_ns(),
                ),
            )
            tx.run(
                "DELETE FROM registry_blobs WHERE diff_id = ? AND seen_ns <= (SELECT seen_ns FROM registry_blobs"
                " WHERE diff_id = ? ORDER BY seen_ns DESC LIMIT 1 OFFSET ?)",
                (place.diff_id, place.diff_id, _MOST_PLACES),
            )

    def forget_blob(self, place: Place) -> None:
        """A repository no longer has it."""
        with self._db.transaction() as tx:
            tx.run(
                "DELETE FROM registry_blobs WHERE diff_id = ? AND digest = ? AND domain = ? AND path = ?",
                (place.diff_id, place.digest, place.domain, place.path),
            )

    def places(self, diff_id: str) -> list[Place]:
        """Where a layer was seen, as which blob; the latest first."""
        rows = self._db.all("SELECT * FROM registry_blobs WHERE diff_id = ? ORDER BY seen_ns DESC", (diff_id,))
        return [
            Place(
                diff_id=row["diff_id"],
                digest=row["digest"],
                size_bytes=row["size_bytes"],
                media_type=row["media_type"],
                domain=row["domain"],
                path=row["path"],
            )
            for row in rows
        ]

    def saw_manifest(self, image_id: str, digest: str, document: bytes) -> None:
        with self._db.transaction() as tx:
            tx.run(
                "INSERT OR REPLACE INTO registry_manifests VALUES (?, ?, ?, ?)",
                (image_id, digest, document, time.time_ns()),
            )
            tx.run(
                "DELETE FROM registry_manifests WHERE image_id = ? AND seen_ns <= (SELECT seen_ns FROM"
                " registry_manifests WHERE image_id = ? ORDER BY seen_ns DESC LIMIT 1 OFFSET ?)",
                (image_id, image_id, _MOST_MANIFESTS),
            )

    def manifests(self, image_id: str) -> list[bytes]:
        """An image's manifests, the latest first."""
        rows = self._db.all(
            "SELECT document FROM registry_manifests WHERE image_id = ? ORDER BY seen_ns DESC", (image_id,)
        )
        return [row["document"] for row in rows]

    def forget_gone(self, images: set[str], layers: set[str]) -> None:
        """Drops what is known of images and layers that are no longer here."""
        with self._db.transaction() as tx:
            for table, column, kept in (
                ("registry_manifests", "image_id", images),
                ("registry_blobs", "diff_id", layers),
            ):
                gone = [row[column] for row in tx.all(f"SELECT DISTINCT {column} FROM {table}")]
                tx.run_many(f"DELETE FROM {table} WHERE {column} = ?", [(one,) for one in gone if one not in kept])
