"""Addresses: which subnet a network gets, and which address an endpoint.

It must never hand out what is in use. The database decides that, in the transaction that also records the endpoint: a
crash leaves either both or neither. A released address goes on counting as used (`leaving`) until its link is gone.

    network_leases(pool, position, holder, link, leaving, had_flows)
        pool: the subnet; position: address minus first address; had_flows: connections may be tracked that lead here
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tare.errors import Forbidden, InvalidArgument, ResourceExhausted, Unsupported
from tare.storage.database import Database, Transaction

SCHEMA = """
CREATE TABLE network_leases (
    pool TEXT NOT NULL,
    position INTEGER NOT NULL,
    holder TEXT NOT NULL,
    link TEXT NOT NULL DEFAULT '',
    leaving INTEGER NOT NULL DEFAULT 0,
    had_flows INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (pool, position)
) WITHOUT ROWID;
CREATE INDEX network_leases_leaving ON network_leases (leaving) WHERE leaving;
"""

# Docker's local defaults: 172.17.0.0/16 up to 172.31.0.0/16, then 192.168.0.0/16 in /20s.
DEFAULT_POOLS = (
    *(f"172.{second}.0.0/16" for second in range(17, 32)),
    *(f"192.168.{third}.0/20" for third in range(0, 256, 16)),
)

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_PART = 1 << 62

_FREE = """
SELECT position + 1 AS free FROM network_leases AS taken WHERE pool = ? AND position >= ? AND NOT EXISTS
    (SELECT 1 FROM network_leases AS next WHERE next.pool = taken.pool AND next.position = taken.position + 1)
ORDER BY position LIMIT 1
"""


def parse_subnet(text: str) -> ipaddress.IPv4Interface:
    """`--bip`: the bridge's address with its prefix; given a bare subnet, its first address."""
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid CIDR address: {text}") from error
    subnet = interface.network
    if "/" not in text or subnet.prefixlen > 30:
        raise InvalidArgument(f"invalid CIDR address: {text}: no room for a gateway and a container")
    if interface.ip == subnet.network_address:
        return _first_of(subnet)
    if interface.ip == subnet.broadcast_address:
        raise InvalidArgument(f"invalid CIDR address: {text}: the bridge can't take the broadcast address")
    return interface


def parse_subnet6(text: str) -> ipaddress.IPv6Interface:
    """`--fixed-cidr-v6`: an IPv6 subnet, whose first address the bridge takes."""
    try:
        subnet = ipaddress.IPv6Network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"invalid CIDR address: {text}") from error
    if "/" not in text or subnet.prefixlen > 126:
        raise InvalidArgument(f"invalid CIDR address: {text}: no room for a gateway and a container")
    return ipaddress.IPv6Interface((subnet.network_address + 1, subnet.prefixlen))


def own_subnet6(network_id: str) -> ipaddress.IPv6Interface:
    """A unique local subnet for a network that wants IPv6 and names none (RFC 4193)."""
    packed = b"\xfd" + hashlib.sha256(network_id.encode()).digest()[:7] + bytes(8)
    return parse_subnet6(f"{ipaddress.IPv6Address(packed)}/64")


def choose_subnet(pools: Sequence[str], taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Interface:
    """The first pool that overlaps nothing that the host already reaches."""
    used = [subnet for subnet in taken if subnet.prefixlen]
    for text in pools:
        candidate = ipaddress.IPv4Network(text)
        if not any(candidate.overlaps(subnet) for subnet in used):
            return _first_of(candidate)
    raise ResourceExhausted("all predefined address pools have been fully subnetted")


def _first_of(subnet: ipaddress.IPv4Network) -> ipaddress.IPv4Interface:
    return ipaddress.IPv4Interface((subnet.network_address + 1, subnet.prefixlen))


class AddressPool:
    """The leases of one subnet. `gateway`, the network's and the broadcast address are never handed out.

    ip_range: the part of the subnet that addresses are taken from unless one is asked for; reserved: addresses that
    others than containers have.
    """

    def __init__(self, db: Database, interface: Interface, ip_range: str = "", reserved: Sequence[str] = ()) -> None:
        self._db = db
        self.subnet = interface.network
        self.gateway = interface.ip
        self._reserved = tuple(ipaddress.ip_address(text) for text in reserved)
        self._name = str(self.subnet)
        part = ipaddress.ip_network(ip_range) if ip_range else self.subnet
        self._first = int(part.network_address) - int(self.subnet.network_address)
        self._last = int(part.broadcast_address) - int(self.subnet.network_address)
        if self._first >= _PART:
            raise Unsupported(f"the range {ip_range} begins too far behind the beginning of {self.subnet}")
        self._last = min(self._last, _PART - 2)

    def prepare(self) -> None:
        """Writes the addresses that nobody may have as leases, so that looking for a gap can't find them."""
        network = self.subnet.network_address
        fixed: list[tuple[Ip, str]] = [(network, "network"), (self.gateway, "gateway")]
        if self.subnet.version == 4:
            fixed.append((self.subnet.broadcast_address, "broadcast"))
        fixed += [(address, "reserved") for address in self._reserved]
        with self._db.transaction(durable=False) as tx:
            tx.run("DELETE FROM network_leases WHERE pool = ? AND holder = 'gateway'", (self._name,))
            for address, holder in fixed:
                tx.run(
                    "INSERT INTO network_leases (pool, position, holder) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (*self._place(address), holder),
                )

    def take(self, tx: Transaction, endpoint_id: str, link: str, network: str) -> Ip:
        """The lowest free address, recorded as `endpoint_id`'s."""
        position = self._gap(tx)
        if (self._name, position) == self._place(self.gateway):  # a container had it before the bridge (another --bip)
            self._lease(tx, self.gateway, "gateway")
            position = self._gap(tx)
        if position > self._last:
            raise ResourceExhausted(
                f"no available IPv{self.subnet.version} addresses on this network's address pools: {network}"
            )
        address = self.subnet.network_address + position
        self._lease(tx, address, endpoint_id, link)
        return address

    def take_static(self, tx: Transaction, endpoint_id: str, link: str, address: Ip) -> None:
        """Records the address that was asked for as `endpoint_id`'s. Raises Forbidden if somebody has it."""
        if self._holder(tx, address) is not None:
            raise Forbidden("Address already in use")
        self._lease(tx, address, endpoint_id, link)

    def parse_static(self, text: str) -> Ip:
        """An address of this subnet that a user asked for. Raises InvalidArgument with Docker's texts."""
        try:
            address = type(self.gateway)(text)
        except ValueError as error:
            raise InvalidArgument(f"invalid IPv{self.subnet.version} address: {text}") from error
        if address not in self.subnet:
            raise InvalidArgument(f"invalid endpoint settings:\nno configured subnet contains IP address {text}")
        return address

    def is_leaving(self, address: Ip) -> bool:
        """Whether the address is held only by a link that is about to go."""
        row = self._db.one("SELECT leaving FROM network_leases WHERE pool = ? AND position = ?", self._place(address))
        return row is not None and bool(row["leaving"])

    def _holder(self, tx: Transaction, address: Ip) -> str | None:
        row = tx.one("SELECT holder FROM network_leases WHERE pool = ? AND position = ?", self._place(address))
        return str(row["holder"]) if row else None

    def _gap(self, tx: Transaction) -> int:
        if self._first and self._holder(tx, self.subnet.network_address + self._first) is None:
            return self._first
        row = tx.one(_FREE, (self._name, self._first))
        return int(row["free"]) if row else self._last + 1

    def _lease(self, tx: Transaction, address: Ip, holder: str, link: str = "") -> None:
        tx.run(
            "INSERT INTO network_leases (pool, position, holder, link) VALUES (?, ?, ?, ?)",
            (*self._place(address), holder, link),
        )

    def _place(self, address: Ip) -> tuple[str, int]:
        """Pool and position: SQLite's numbers have 63 bits, so that large IPv6 subnets are several pools."""
        part, position = divmod(int(address) - int(self.subnet.network_address), _PART)
        return (f"{self._name}#{part}" if part else self._name), position


def forget_pool(tx: Transaction, pool: str) -> None:
    """Drops all leases of a subnet whose network is gone."""
    tx.run("DELETE FROM network_leases WHERE pool = ? OR pool LIKE ?", (pool, f"{pool}#%"))


def leave(tx: Transaction, endpoint_id: str, had_flows: bool) -> None:
    """Marks an endpoint's addresses as free once its link is gone."""
    tx.run("UPDATE network_leases SET leaving = 1, had_flows = ? WHERE holder = ?", (had_flows, endpoint_id))


def leave_orphans(tx: Transaction) -> None:
    """Marks the leases that no endpoint holds: what a crash between two steps may leave."""
    tx.run(
        "UPDATE network_leases SET leaving = 1, had_flows = 1 WHERE link <> '' AND holder NOT IN "
        "(SELECT endpoint_id FROM network_endpoints)"
    )


class LeavingLease(NamedTuple):
    """A released address whose link may still be there."""

    link: str
    address: str
    had_flows: bool


def leaving_leases(db: Database) -> list[LeavingLease]:
    rows = db.all("SELECT pool, position, link, had_flows FROM network_leases WHERE leaving = 1")
    return [
        LeavingLease(row["link"], str(_address(row["pool"], row["position"])), bool(row["had_flows"])) for row in rows
    ]


def free(db: Database, links: Sequence[str]) -> None:
    """Frees the addresses of released leases whose links are gone."""
    if not links:
        return
    with db.transaction(durable=False) as tx:
        tx.run_many("DELETE FROM network_leases WHERE leaving = 1 AND link = ?", [(link,) for link in links])


def _address(pool: str, position: int) -> Ip:
    subnet, _, part = pool.partition("#")
    return ipaddress.ip_network(subnet).network_address + (int(part or 0) * _PART + position)
