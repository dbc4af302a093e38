"""The records of packed files: which file of which layer, over what base.

Must never read a file: what a map means on the disk is `chunks/reading.py`'s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from tare import errors
from tare.storage.chunks.maps import BASE, Entry, compose, decode
from tare.storage.database import Database, Transaction


class PackedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A row, its map still encoded. stored_bytes: what its own chunks took when it was packed."""

    file_id: int
    mark: str
    diff_id: str
    path: bytes
    size: int
    mtime_ns: int
    sha256: bytes
    base_diff_id: str | None
    map: bytes
    stored_bytes: int

    def entries(self) -> list[Entry]:
        return decode(self.map)


class PackedFiles:
    """All rows. Reads inside a transaction of the same thread see what it wrote."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, file_id: int) -> PackedFile | None:
        return _one(self._db.one("SELECT * FROM packed_files WHERE file_id = ?", (file_id,)))

    def marked(self, mark: str) -> PackedFile | None:
        return _one(self._db.one("SELECT * FROM packed_files WHERE mark = ?", (mark,)))

    def find(self, diff_id: str, path: bytes) -> PackedFile | None:
        row = self._db.one("SELECT * FROM packed_files WHERE diff_id = ? AND path = ?", (diff_id, path))
        return _one(row)

    def all(self) -> list[PackedFile]:
        return [_file(row) for row in self._db.all("SELECT * FROM packed_files ORDER BY file_id")]

    def of_layer(self, diff_id: str) -> list[PackedFile]:
        rows = self._db.all("SELECT * FROM packed_files WHERE diff_id = ? ORDER BY path", (diff_id,))
        return [_file(row) for row in rows]

    def paths(self, diff_id: str) -> list[tuple[int, bytes]]:
        """(id, path) of a layer's."""
        rows = self._db.all("SELECT file_id, path FROM packed_files WHERE diff_id = ?", (diff_id,))
        return [(row["file_id"], row["path"]) for row in rows]

    def over(self, base_diff_id: str) -> list[PackedFile]:
        """Those whose base is in a layer."""
        rows = self._db.all("SELECT * FROM packed_files WHERE base_diff_id = ?", (base_diff_id,))
        return [_file(row) for row in rows]

    def diff_ids(self) -> set[str]:
        """The layers that have a packed file."""
        return {row["diff_id"] for row in self._db.all("SELECT DISTINCT diff_id FROM packed_files")}

    def resolved(self, file: PackedFile) -> tuple[list[Entry], str | None]:
        """What a file is made of, through all bases that are packed themselves; the layer whose plain file is the last.

        None: no byte comes from a plain file. Raises Internal for bases that go round in a circle.
        """
        entries, base = file.entries(), file.base_diff_id
        seen = {file.file_id}
        while base is not None and any(entry.source == BASE for entry in entries):
            below = self.find(base, file.path)
            if below is None:
                return entries, base
            if below.file_id in seen:
                raise errors.Internal(f"packed file {file.path!r} of layer {file.diff_id} is its own base")
            seen.add(below.file_id)
            entries, base = compose(entries, below.entries()), below.base_diff_id
        return entries, None

    def leads_to(self, diff_id: str, path: bytes, target: str) -> bool:
        """Whether the file of a layer needs that of another: as its base, or as its base's …"""
        at: str | None = diff_id
        while at is not None and at != target:
            file = self.find(at, path)
            at = file.base_diff_id if file is not None else None
        return at == target

    def links(self, tx: Transaction) -> dict[tuple[str, bytes], str | None]:
        """(layer, path) → the base's layer, of all."""
        rows = tx.all("SELECT diff_id, path, base_diff_id FROM packed_files")
        return {(row["diff_id"], row["path"]): row["base_diff_id"] for row in rows}

    @staticmethod
    def insert(tx: Transaction, file: PackedFile) -> None:
        """A new row, whose id the database gives."""
        tx.run(
            "INSERT INTO packed_files (mark, diff_id, path, size, mtime_ns, sha256, base_diff_id, map, stored_bytes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(file.mark, file.diff_id, file.path, file.size, file.mtime_ns),
                *(file.sha256, file.base_diff_id, file.map, file.stored_bytes),
            ),
        )

    @staticmethod
    def rebase(tx: Transaction, file: PackedFile, encoded: bytes, base_diff_id: str | None) -> None:
        tx.run(
            "UPDATE packed_files SET map = ?, base_diff_id = ? WHERE file_id = ?",
            (encoded, base_diff_id, file.file_id),
        )

    @staticmethod
    def delete(tx: Transaction, file_ids: Sequence[int]) -> None:
        tx.run_many("DELETE FROM packed_files WHERE file_id = ?", [(file_id,) for file_id in file_ids])


def _one(row: sqlite3.Row | None) -> PackedFile | None:
    return _file(row) if row is not None else None


def _file(row: sqlite3.Row) -> PackedFile:
    return PackedFile(**dict(row))
