"""The bridge networks of one engine as they are in the kernel: each one's link and its address pool.

It must never hold what a restart would lose: everything here is made anew from the records by `ensure`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tare.errors import Unavailable
from tare.kernel import netlink_route as route
from tare.kernel.netlink_route import Link, RouteSocket
from tare.network import bridge, endpoint_links, ipam
from tare.network.leaving import Leaving
from tare.network.records import EndpointRecord, NetworkRecord
from tare.storage.database import Database


class BridgeNetwork(NamedTuple):
    """A network whose bridge is up."""

    record: NetworkRecord
    link: Link
    addresses: ipam.AddressPool
    addresses6: ipam.AddressPool | None

    @property
    def title(self) -> str:
        """How Docker's errors name a network."""
        return f"{self.record.name} ({self.record.network_id})"


class Bridges:
    """All bridge networks that are up, by network id."""

    def __init__(self, db: Database, sock: RouteSocket, leaving: Leaving, *, publishes: bool) -> None:
        self._db = db
        self._route = sock
        self._leaving = leaving
        self._publishes = publishes
        self._up: dict[str, BridgeNetwork] = {}

    def __iter__(self) -> Iterator[BridgeNetwork]:
        return iter(list(self._up.values()))

    def get(self, network_id: str) -> BridgeNetwork | None:
        return self._up.get(network_id)

    def find(self, record: NetworkRecord) -> BridgeNetwork:
        """Raises Unavailable if the network's bridge could not be made."""
        found = self._up.get(record.network_id)
        if found is None:
            raise Unavailable(f"network {record.name} has no bridge: the engine's log says why")
        return found

    def ensure(self, record: NetworkRecord) -> BridgeNetwork:
        """The network's bridge, made or repaired; its address pool, prepared."""
        link = bridge.ensure_bridge(self._route, record, publishes=self._publishes)
        known = self._up.get(record.network_id)
        if known is not None and known.record == record:
            addresses, addresses6 = known.addresses, known.addresses6
        else:
            own = [text for text in record.reserved if ":" not in text]
            addresses, addresses6 = ipam.AddressPool(self._db, record.interface, record.ip_range, own), None
            addresses.prepare()
            if record.interface6 is not None:
                own = [text for text in record.reserved if ":" in text]
                addresses6 = ipam.AddressPool(self._db, record.interface6, record.ip_range6, own)
                addresses6.prepare()
        self._up[record.network_id] = made = BridgeNetwork(record, link, addresses, addresses6)
        return made

    def is_whole(self, record: NetworkRecord) -> bool:
        """Whether the bridge is there and up, has its address, and all that is plugged into it."""
        link = self._route.link(record.bridge_name)
        if link is None or not link.is_up:
            return False
        if not set(record.interfaces) <= {address.interface for address in self._route.addresses(link.ifindex)}:
            return False
        return self._up.get(record.network_id) is not None and self._up[record.network_id].link.ifindex == link.ifindex

    def plug_in(self, endpoint: EndpointRecord) -> None:
        """Connects an endpoint to its network's bridge again, should that be another link than before."""
        network = self._up.get(endpoint.network_id)
        if network is not None:
            endpoint_links.plug_in(self._route, endpoint, network.link, isolated=not network.record.icc)

    async def delete_strays(self, network: BridgeNetwork, live: frozenset[str]) -> None:
        """Deletes links of containers that don't live any more."""
        strays = [
            link.name
            for link in self._route.links(network.link.ifindex)
            if endpoint_links.is_endpoint(link) and link.alias not in live
        ]
        await self._leaving.delete_links(strays)

    def remove_nowait(self, record: NetworkRecord) -> None:
        """Takes away a bridge that was just made, with nothing plugged in; it may take some milliseconds."""
        link = self._route.link(record.bridge_name)
        if link is not None and link.kind == "bridge" and bridge.is_ours(link, record.network_id):
            self._route.execute((route.delete_link(link.name),))
        self._up.pop(record.network_id, None)

    async def remove(self, record: NetworkRecord) -> None:
        """Takes the network's bridge away, and what is plugged into it; one that was there before us stays."""
        link = self._route.link(record.bridge_name)
        if link is not None and link.kind == "bridge" and bridge.is_ours(link, record.network_id):
            ports = [port.name for port in self._route.links(link.ifindex) if endpoint_links.is_endpoint(port)]
            await self._leaving.delete_links([*ports, link.name])
        self._leaving.collect()
        self._up.pop(record.network_id, None)
