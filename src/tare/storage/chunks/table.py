"""Chunks by what they hold: each is stored once, and known to be whole before anybody gets it.

Must never return bytes that don't have the digest recorded for them.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from tare import errors
from tare.storage.chunks.packs import Packs
from tare.storage.database import Database, Transaction

CHUNK_BYTES = 64 << 10
_LEVEL = 3
_BATCH = 500  # names in one IN (…)


class Chunk(msgspec.Struct, frozen=True):
    """A chunk's row."""

    chunk_id: int
    sha256: bytes
    length: int
    pack: int
    offset: int
    stored: int


class Chunks:
    """The chunks of one store."""

    def __init__(self, db: Database, packs: Packs) -> None:
        self._db = db
        self._packs = packs

    def find(self, digest: bytes) -> int | None:
        row = self._db.one("SELECT chunk_id FROM chunks WHERE sha256 = ?", (digest,))
        return row["chunk_id"] if row else None

    def load(self, chunk_ids: Iterable[int]) -> dict[int, Chunk]:
        """The rows of some chunks. Raises Internal if one is gone."""
        wanted = list(set(chunk_ids))
        found: dict[int, Chunk] = {}
        for start in range(0, len(wanted), _BATCH):
            some = wanted[start : start + _BATCH]
            marks = ",".join("?" * len(some))
            for row in self._db.all(f"SELECT * FROM chunks WHERE chunk_id IN ({marks})", some):
                found[row["chunk_id"]] = _chunk(row)
        if len(found) != len(wanted):
            raise errors.Internal(f"{len(wanted) - len(found)} chunks of a packed file are not recorded")
        return found

    def read(self, chunk: Chunk) -> bytes:
        """The plain bytes. Raises Internal naming pack and offset if they aren't what was stored."""
        stored = self._packs.read(chunk.pack, chunk.offset, chunk.stored)
        data = stored if chunk.stored == chunk.length else _inflated(stored, chunk)
        if len(data) != chunk.length or hashlib.sha256(data).digest() != chunk.sha256:
            raise _damaged(chunk)
        return data

    def all(self) -> list[sqlite3.Row]:
        return self._db.all("SELECT * FROM chunks ORDER BY pack, offset")

    # -- within a transaction --------------------------------------------------------------------------------------

    @staticmethod
    def are_there(tx: Transaction, chunk_ids: Iterable[int]) -> bool:
        """Whether all of these still have a row. Ask before new ones are recorded: they may get old ids."""
        return all(tx.one("SELECT 1 FROM chunks WHERE chunk_id = ?", (one,)) is not None for one in chunk_ids)

    @staticmethod
    def add_uses(tx: Transaction, chunk_ids: Sequence[int]) -> None:
        counted = Counter(chunk_ids)
        tx.run_many(
            "UPDATE chunks SET uses = uses + ? WHERE chunk_id = ?",
            [(count, chunk_id) for chunk_id, count in counted.items()],
        )

    @staticmethod
    def drop_uses(tx: Transaction, chunk_ids: Sequence[int]) -> None:
        """A chunk without a use is forgotten; what it took in its pack is to be given back."""
        counted = Counter(chunk_ids)
        tx.run_many(
            "UPDATE chunks SET uses = uses - ? WHERE chunk_id = ?",
            [(count, chunk_id) for chunk_id, count in counted.items()],
        )
        ids = [(chunk_id,) for chunk_id in counted]
        tx.run_many(
            "INSERT INTO dead_ranges (pack, offset, stored)"
            " SELECT pack, offset, stored FROM chunks WHERE chunk_id = ? AND uses <= 0",
            ids,
        )
        tx.run_many("DELETE FROM chunks WHERE chunk_id = ? AND uses <= 0", ids)


class NewChunks:
    """Chunks of a file that is being packed: written to the packs, recorded by `record` in the file's transaction.

    Until then they have the ids -2, -3 … in the file's map.
    """

    def __init__(self, chunks: Chunks, packs: Packs) -> None:
        import zstandard  # here, since an idle engine shouldn't carry it

        self._chunks = chunks
        self._packs = packs
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._made: dict[bytes, tuple[int, int, int, int, int]] = {}
        self.stored_bytes = 0

    def add(self, data: bytes) -> int:
        """The id of a chunk with these bytes, stored if it isn't there."""
        digest = hashlib.sha256(data).digest()
        made = self._made.get(digest)
        if made is not None:
            return made[0]
        present = self._chunks.find(digest)
        if present is not None:
            return present
        packed = self._compressor.compress(data)
        if len(packed) >= len(data):
            packed = data
        pack, offset = self._packs.append(packed)
        number = -2 - len(self._made)
        self._made[digest] = (number, len(data), pack, offset, len(packed))
        self.stored_bytes += len(packed)
        return number

    def sync(self) -> None:
        self._packs.sync({pack for _, _, pack, _, _ in self._made.values()})

    def record(self, tx: Transaction) -> dict[int, int]:
        """Makes the rows, without uses yet; returns the ids in place of those given out."""
        ids: dict[int, int] = {}
        for digest, (number, length, pack, offset, stored) in self._made.items():
            tx.run(
                "INSERT INTO chunks (sha256, length, pack, offset, stored, uses) VALUES (?, ?, ?, ?, ?, 0)",
                (digest, length, pack, offset, stored),
            )
            row = tx.one("SELECT last_insert_rowid() AS id")
            ids[number] = row["id"] if row else 0
        return ids


def _inflated(stored: bytes, chunk: Chunk) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=chunk.length)
    except zstandard.ZstdError as error:
        raise _damaged(chunk) from error


def _damaged(chunk: Chunk) -> errors.Internal:
    return errors.Internal(
        f"pack {chunk.pack} is damaged: its {chunk.stored} bytes from {chunk.offset} on are not chunk"
        f" {chunk.sha256.hex()[:12]}"
    )


def _chunk(row: sqlite3.Row) -> Chunk:
    return Chunk(row["chunk_id"], row["sha256"], row["length"], row["pack"], row["offset"], row["stored"])
