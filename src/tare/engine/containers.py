"""The engine's containers: the stored records, found by what a user types. Changes are in the database when it returns.

containers(id TEXT PRIMARY KEY, name TEXT UNIQUE, record BLOB)     record: JSON of tare.engine.records.Container
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import msgspec

from tare.engine.records import Container, ContainerState
from tare.errors import Conflict, InvalidArgument, NotFound, ResourceExhausted
from tare.storage.database import Database, Transaction
from tare.values.ids import is_id_prefix

_SCHEMA = ["CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL)"]
log = logging.getLogger("tare.engine")
Along = Callable[[Transaction], None]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Container).decode


class Containers:
    """All containers of one engine."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate("engine", _SCHEMA)
        self._by_id: dict[str, Container] = {}
        self._ids_by_name: dict[str, str] = {}
        for row in database.all("SELECT record FROM containers"):
            container = _decode(row["record"])
            self._by_id[container.id] = container
            self._ids_by_name[container.name] = container.id

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, container_id: str) -> Container | None:
        """The container with that full id."""
        return self._by_id.get(container_id)

    def find(self, ref: str) -> Container:
        """The container that a user means by a full id, a name or a unique beginning of an id.

        Raises NotFound, or InvalidArgument if several ids begin so; texts are Docker's.
        """
        found = self._by_id.get(ref)
        if found is not None:
            return found
        by_name = self._ids_by_name.get(ref.removeprefix("/"))
        if by_name is not None:
            return self._by_id[by_name]
        if is_id_prefix(ref):
            matches = [container for id_, container in self._by_id.items() if id_.startswith(ref)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise InvalidArgument(f"multiple IDs found with provided prefix: {ref}")
        raise NotFound(f"No such container: {ref}")

    def name_is_free(self, name: str) -> bool:
        """Whether no container bears that name."""
        return name not in self._ids_by_name

    def check_name_free(self, name: str) -> None:
        """Raises Conflict with Docker's text if a container bears that name."""
        owner = self._ids_by_name.get(name)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def add(self, container: Container, *, along: Along | None = None) -> None:
        """Stores a new container. along: what else its transaction does. Raises Conflict if its name is taken."""
        self.check_name_free(container.name)
        with self._database.transaction(durable=not container.host.auto_remove) as tx:
            tx.run(
                "INSERT INTO containers (id, name, record) VALUES (?, ?, ?)",
                (container.id, container.name, _encode(container)),
            )
            if along is not None:
                along(tx)
        self._by_id[container.id] = container
        self._ids_by_name[container.name] = container.id

    def save(self, container: Container, *, durable: bool = False, along: Along | None = None) -> Container:
        """Stores a changed container (perhaps under a new name). along: what else its transaction does."""
        with self._database.transaction(durable=durable) as tx:
            tx.run(
                "UPDATE containers SET name = ?, record = ? WHERE id = ?",
                (container.name, _encode(container), container.id),
            )
            if along is not None:
                along(tx)
        old = self._by_id[container.id]
        if old.name != container.name:
            del self._ids_by_name[old.name]
            self._ids_by_name[container.name] = container.id
        self._by_id[container.id] = container
        return container

    def save_state(
        self, container_id: str, *, durable: bool = False, base: Container | None = None, **changes: object
    ) -> Container:
        """Stores a container's state with some fields changed; returns the new record.

        base: a record of the same container with other changes to store along.
        """
        container = base or self._by_id[container_id]
        state: ContainerState = msgspec.structs.replace(container.state, **changes)
        if base is None and state == container.state:
            return container
        return self.save(msgspec.structs.replace(container, state=state), durable=durable)

    def note_state(self, container_id: str, **changes: object) -> Container:
        """The same for what mustn't wait for room on a disk: where there is none, it is stored with the next change."""
        container = self._by_id[container_id]
        state: ContainerState = msgspec.structs.replace(container.state, **changes)
        changed = msgspec.structs.replace(container, state=state)
        try:
            return container if state == container.state else self.save(changed)
        except ResourceExhausted as error:
            log.warning("state of %s: %s; stored with its next change", container_id[:12], error)
            self._by_id[container_id] = changed
            return changed

    def remove(self, container_id: str, *, along: Along | None = None) -> None:
        """Forgets a container. along: what else its transaction does."""
        container = self._by_id[container_id]
        # Not synced: a container that a power cut brings back can be removed again; one that stays would be lost.
        with self._database.transaction(durable=False) as tx:
            tx.run("DELETE FROM containers WHERE id = ?", (container_id,))
            if along is not None:
                along(tx)
        del self._by_id[container_id]
        del self._ids_by_name[container.name]
