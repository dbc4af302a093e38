"""What the network room keeps in the engine's database: networks and endpoints. It must never touch the kernel.

network_networks(name, network_id, record)                              the three defaults and the users' own
network_endpoints(endpoint_id, container_id, network_id, record)        record: JSON of the records.py struct
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tare.network import ipam
from tare.network.records import EndpointRecord, NetworkRecord
from tare.storage.database import Database, Transaction

_SCHEMA = """
CREATE TABLE network_networks (name TEXT PRIMARY KEY, network_id TEXT NOT NULL UNIQUE, record BLOB NOT NULL);
CREATE TABLE network_endpoints (
    endpoint_id TEXT PRIMARY KEY,
    container_id TEXT NOT NULL,
    network_id TEXT NOT NULL,
    record BLOB NOT NULL,
    UNIQUE (container_id, network_id)
);
"""
MIGRATIONS = (_SCHEMA + ipam.SCHEMA,)

_encoder = msgspec.json.Encoder()
_endpoint_decoder = msgspec.json.Decoder(EndpointRecord)
_network_decoder = msgspec.json.Decoder(NetworkRecord)


class NetworkStore:
    """Typed queries on the room's tables."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def migrate(self) -> None:
        self._db.migrate("network", MIGRATIONS)

    def networks(self) -> list[NetworkRecord]:
        rows = self._db.all("SELECT record FROM network_networks ORDER BY name")
        return [_network_decoder.decode(row["record"]) for row in rows]

    def network_by_id(self, network_id: str) -> NetworkRecord | None:
        row = self._db.one("SELECT record FROM network_networks WHERE network_id = ?", (network_id,))
        return _network_decoder.decode(row["record"]) if row else None

    def network(self, name: str) -> NetworkRecord | None:
        row = self._db.one("SELECT record FROM network_networks WHERE name = ?", (name,))
        return _network_decoder.decode(row["record"]) if row else None

    def put_network(self, record: NetworkRecord, *endpoints: EndpointRecord) -> None:
        """Stores a network, and changed endpoints with it: all of them or none."""
        with self._db.transaction() as tx:
            _update(tx, endpoints)
            tx.run(
                "INSERT OR REPLACE INTO network_networks (name, network_id, record) VALUES (?, ?, ?)",
                (record.name, record.network_id, _encoder.encode(record)),
            )

    def remove_network(self, tx: Transaction, network_id: str) -> None:
        tx.run("DELETE FROM network_networks WHERE network_id = ?", (network_id,))

    def endpoints(self) -> list[EndpointRecord]:
        rows = self._db.all("SELECT record FROM network_endpoints")
        return [_endpoint_decoder.decode(row["record"]) for row in rows]

    def endpoint(self, container_id: str) -> EndpointRecord | None:
        row = self._db.one("SELECT record FROM network_endpoints WHERE container_id = ?", (container_id,))
        return _endpoint_decoder.decode(row["record"]) if row else None

    def endpoints_of(self, container_id: str) -> list[EndpointRecord]:
        """A container's endpoints, in the order in which it got them."""
        rows = self._db.all(
            "SELECT record FROM network_endpoints WHERE container_id = ? ORDER BY rowid", (container_id,)
        )
        return [_endpoint_decoder.decode(row["record"]) for row in rows]

    def put_endpoint(self, *records: EndpointRecord) -> None:
        """Stores changed endpoints, all of them or none."""
        with self._db.transaction(durable=False) as tx:
            _update(tx, records)

    def add_endpoint(self, tx: Transaction, record: EndpointRecord) -> None:
        tx.run(
            "INSERT INTO network_endpoints (endpoint_id, container_id, network_id, record) VALUES (?, ?, ?, ?)",
            (record.endpoint_id, record.container_id, record.network_id, _encoder.encode(record)),
        )

    def has_mac(self, tx: Transaction, network_id: str, mac: str) -> bool:
        """Whether an endpoint of a network has a MAC (lower case)."""
        row = tx.one(
            "SELECT 1 FROM network_endpoints WHERE network_id = ? "
            "AND lower(json_extract(CAST(record AS TEXT), '$.mac')) = ?",
            (network_id, mac),
        )
        return row is not None

    def remove_endpoint(self, record: EndpointRecord) -> None:
        with self._db.transaction(durable=False) as tx:
            ipam.leave(tx, record.endpoint_id, had_flows=any(port.protocol == "udp" for port in record.ports))
            tx.run("DELETE FROM network_endpoints WHERE endpoint_id = ?", (record.endpoint_id,))


def _update(tx: Transaction, records: Iterable[EndpointRecord]) -> None:
    for record in records:
        tx.run(
            "UPDATE network_endpoints SET record = ? WHERE endpoint_id = ?",
            (_encoder.encode(record), record.endpoint_id),
        )
