"""What waits in the trash: the records of removed containers, in the database. No verbs, no files.

trash(id TEXT PRIMARY KEY, removed_ns INTEGER, size_bytes INTEGER, record BLOB)    record: as in table `containers`

A container is in one of the two tables at any time: it moves within one transaction. Its snapshot and its directory
stay where they are; who looks for what belongs to nobody asks `holds`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tare.engine.records import Container
from tare.errors import InvalidArgument, NotFound
from tare.storage.database import Database, Transaction
from tare.values.ids import is_id_prefix

_SCHEMA = (
    "CREATE TABLE trash (id TEXT PRIMARY KEY, removed_ns INTEGER NOT NULL, size_bytes INTEGER NOT NULL,"
    " record BLOB NOT NULL)",
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Container).decode


class Trashed(msgspec.Struct, frozen=True, kw_only=True):
    """A removed container. size_bytes: of its upper layer, log and other files; 0 until it is known."""

    container: Container
    removed_ns: int
    size_bytes: int = 0


class TrashStore:
    """All that waits, oldest first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate("trash", _SCHEMA)
        self._entries: dict[str, Trashed] = {}
        for row in database.all("SELECT * FROM trash ORDER BY removed_ns"):
            container = _decode(row["record"])
            self._entries[container.id] = Trashed(
                container=container, removed_ns=row["removed_ns"], size_bytes=row["size_bytes"]
            )

    def __iter__(self) -> Iterator[Trashed]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def holds(self, container_id: str) -> bool:
        """Whether a container of this id waits here."""
        return container_id in self._entries

    def find(self, ref: str) -> Trashed:
        """By id, unique beginning of an id, or name (of several, the one removed last). Raises NotFound."""
        if ref in self._entries:
            return self._entries[ref]
        named = [entry for entry in self if entry.container.name == ref.removeprefix("/")]
        if named:
            return named[-1]
        matches = [entry for entry in self if is_id_prefix(ref) and entry.container.id.startswith(ref)]
        if len(matches) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {ref}")
        if not matches:
            raise NotFound(f"No such container in the trash: {ref}")
        return matches[0]

    def insert(self, tx: Transaction, entry: Trashed) -> None:
        """Within the transaction that takes the container out of the other table."""
        tx.run(
            "INSERT OR REPLACE INTO trash (id, removed_ns, size_bytes, record) VALUES (?, ?, ?, ?)",
            (entry.container.id, entry.removed_ns, entry.size_bytes, _encode(entry.container)),
        )

    def delete(self, tx: Transaction, container_id: str) -> None:
        """Within a transaction; `forget` follows it."""
        tx.run("DELETE FROM trash WHERE id = ?", (container_id,))

    def remember(self, entry: Trashed) -> None:
        """After the transaction of `insert`."""
        self._entries[entry.container.id] = entry

    def forget(self, container_id: str) -> None:
        """After the transaction of `delete`."""
        self._entries.pop(container_id, None)

    def drop(self, container_id: str) -> None:
        """Takes an entry out, for good."""
        with self._database.transaction(durable=False) as tx:
            self.delete(tx, container_id)
        self.forget(container_id)

    def set_size(self, container_id: str, size_bytes: int) -> None:
        """Once it is known."""
        entry = self._entries.get(container_id)
        if entry is None:
            return
        with self._database.transaction(durable=False) as tx:
            tx.run("UPDATE trash SET size_bytes = ? WHERE id = ?", (size_bytes, container_id))
        self._entries[container_id] = msgspec.structs.replace(entry, size_bytes=size_bytes)
