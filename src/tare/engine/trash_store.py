"""What waits in the trash: the records of removed containers, volumes and images, in the database. No verbs, no files.

trash(id TEXT PRIMARY KEY, removed_ns INTEGER, size_bytes INTEGER, record BLOB, kind TEXT)

    kind        id                               record
    container   its id                           as in table `containers`; snapshot and directory stay where they are
    volume      an id of its own: names repeat   as in table `volumes`; its files wait in the volumes' `.removed/<id>`
    image       the hex digits of its id         tare.images.records.RemovedImage; layer root `trash:<id>`

A thing is in its own table or in this one at any time: it moves within one transaction. Who looks for what belongs to
nobody asks `holds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from tare import faults
from tare.engine.records import Container
from tare.errors import Conflict, InvalidArgument, NotFound
from tare.images.records import RemovedImage
from tare.storage.database import Database, Transaction
from tare.values.ids import is_id_prefix, short_id
from tare.volumes.records import Volume

_SCHEMA = (
    "CREATE TABLE trash (id TEXT PRIMARY KEY, removed_ns INTEGER NOT NULL, size_bytes INTEGER NOT NULL,"
    " record BLOB NOT NULL)",
    "ALTER TABLE trash ADD COLUMN kind TEXT NOT NULL DEFAULT 'container'",
)
KINDS = ("container", "volume", "image")
LAYER_ROOT = "trash:"
_encode = msgspec.json.Encoder().encode
_decoders: dict[str, Callable[[bytes], Container | Volume | RemovedImage]] = {
    "container": msgspec.json.Decoder(Container).decode,
    "volume": msgspec.json.Decoder(Volume).decode,
    "image": msgspec.json.Decoder(RemovedImage).decode,
}


class Trashed(msgspec.Struct, frozen=True, kw_only=True):
    """A removed thing. size_bytes: of the files that are its own (not: of layers); 0 until it is known."""

    id: str
    record: Container | Volume | RemovedImage
    removed_ns: int
    size_bytes: int = 0

    @property
    def kind(self) -> str:
        """One of KINDS."""
        if isinstance(self.record, Container):
            return "container"
        return "volume" if isinstance(self.record, Volume) else "image"

    @property
    def names(self) -> tuple[str, ...]:
        """What it was called; an image without a name by its short id."""
        if isinstance(self.record, RemovedImage):
            return self.record.names or (short_id(self.record.id),)
        return (self.record.name,)

    @property
    def layer_holder(self) -> str:
        """What holds layers for it, as `Layers.holders` names it; empty: nothing."""
        return {"container": f"snapshot:{self.id}", "image": LAYER_ROOT + self.id, "volume": ""}[self.kind]

    def is_named(self, ref: str) -> bool:
        """Whether that is one of its names; an image's may lack the tag, and may be its whole id."""
        if isinstance(self.record, RemovedImage):
            return ref in (self.record.id, *self.names) or f"{ref}:latest" in self.names
        return ref.removeprefix("/") == self.record.name


class TrashStore:
    """All that waits, oldest first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate("trash", _SCHEMA)
        self._entries: dict[str, Trashed] = {}
        for row in database.all("SELECT * FROM trash ORDER BY removed_ns"):
            self._entries[row["id"]] = Trashed(
                id=row["id"],
                record=_decoders[row["kind"]](row["record"]),
                removed_ns=row["removed_ns"],
                size_bytes=row["size_bytes"],
            )

    def __iter__(self) -> Iterator[Trashed]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def holds(self, entry_id: str) -> bool:
        """Whether something of this id waits here."""
        return entry_id in self._entries

    def holds_layers(self, holder: str) -> bool:
        """Whether a holder of layers (see `Layers.holders`) is something that waits here."""
        return holder.startswith(LAYER_ROOT) or (
            holder.startswith("snapshot:") and holder.partition(":")[2] in self._entries
        )

    def get(self, entry_id: str) -> Trashed | None:
        """What waits under this id."""
        return self._entries.get(entry_id)

    def volumes(self) -> dict[str, str]:
        """The names of the volumes that wait, by the ids under which they do."""
        return {entry.id: entry.names[0] for entry in self if entry.kind == "volume"}

    def newest_volume(self, name: str) -> Trashed | None:
        """Of the removed volumes of that name the one removed last."""
        found = [entry for entry in self if entry.kind == "volume" and entry.is_named(name)]
        return found[-1] if found else None

    def find(self, ref: str, kind: str = "") -> Trashed:
        """By id, unique beginning of an id, or name (of several, the one removed last); kind: only of these.

        Raises NotFound, InvalidArgument (an id's beginning means several), Conflict (a name of several kinds).
        """
        if kind not in ("", *KINDS):
            raise InvalidArgument(f"invalid kind: {kind} (must be {', '.join(KINDS)})")
        wanted = [entry for entry in self if kind in ("", entry.kind)]
        named = [entry for entry in wanted if ref == entry.id] or [entry for entry in wanted if entry.is_named(ref)]
        if len(kinds := sorted({entry.kind for entry in named})) > 1:
            raise Conflict(f"{ref} in the trash is of several kinds ({', '.join(kinds)}): say which with --kind")
        if named:
            return named[-1]
        prefix = ref.removeprefix("sha256:")
        matches = [entry for entry in wanted if is_id_prefix(prefix) and entry.id.startswith(prefix)]
        if len(matches) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {ref}")
        if not matches:
            raise NotFound(f"No such {kind or 'container, volume or image'} in the trash: {ref}")
        return matches[0]

    def insert(self, tx: Transaction, entry: Trashed) -> None:
        """Within the transaction that takes the thing out of its own table; `remember` follows it."""
        faults.point("engine.trash.insert")
        tx.run(
            "INSERT OR REPLACE INTO trash (id, removed_ns, size_bytes, record, kind) VALUES (?, ?, ?, ?, ?)",
            (entry.id, entry.removed_ns, entry.size_bytes, _encode(entry.record), entry.kind),
        )

    def delete(self, tx: Transaction, entry_id: str) -> None:
        """Within a transaction; `forget` follows it."""
        faults.point("engine.trash.delete")
        tx.run("DELETE FROM trash WHERE id = ?", (entry_id,))

    def remember(self, entry: Trashed) -> None:
        """After the transaction of `insert`."""
        self._entries.pop(entry.id, None)  # removed once more: it is the newest now
        self._entries[entry.id] = entry

    def forget(self, entry_id: str) -> None:
        """After the transaction of `delete`."""
        self._entries.pop(entry_id, None)

    def change(self, entry: Trashed) -> None:
        """Stores an entry's new name or size; it stays where it is in the order."""
        if entry.id not in self._entries:
            return
        with self._database.transaction(durable=False) as tx:
            self.insert(tx, entry)
        self._entries[entry.id] = entry
