"""The networks of one engine as they are in the kernel: each one's bridge or parent link, and its address pool.

It must never hold what a restart would lose: everything here is made anew from the records by `ensure`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tare.errors import Unavailable
from tare.kernel import netlink_route as route
from tare.kernel.netlink_route import Link, RouteSocket
from tare.kernel.netns import Netns
from tare.network import bridge, endpoint_links, ipam, stacked_networks
from tare.network.leaving import Leaving
from tare.network.records import EndpointRecord, NetworkRecord
from tare.storage.database import Database


class BridgeNetwork(NamedTuple):
    """A network whose bridge is up, or whose parent link is there (macvlan, ipvlan)."""

    record: NetworkRecord
    link: Link
    addresses: ipam.AddressPool | None
    addresses6: ipam.AddressPool | None

    @property
    def title(self) -> str:
        """How Docker's errors name a network."""
        return f"{self.record.name} ({self.record.network_id})"


class Bridges:
    """All networks with links that are up, by network id."""

    def __init__(self, db: Database, sock: RouteSocket, leaving: Leaving, *, publishes: bool) -> None:
        self._db = db
        self._route = sock
        self._leaving = leaving
        self._publishes = publishes
        self._up: dict[str, BridgeNetwork] = {}
        self.rates_held = True
        """Whether all rates so far are out of the containers' reach."""

    def __iter__(self) -> Iterator[BridgeNetwork]:
        return iter(list(self._up.values()))

    def get(self, network_id: str) -> BridgeNetwork | None:
        return self._up.get(network_id)

    def find(self, record: NetworkRecord) -> BridgeNetwork:
        """Raises Unavailable if the network's bridge could not be made."""
        if record.is_stacked:
            return self.ensure(record)  # the parent is the administrator's, who may have made it anew
        found = self._up.get(record.network_id)
        if found is None:
            raise Unavailable(f"network {record.name} has no bridge: the engine's log says why")
        return found

    def ensure(self, record: NetworkRecord) -> BridgeNetwork:
        """The network's bridge, made or repaired; its address pool, prepared."""
        if record.is_stacked:
            if record.network_id not in self._up:
                stacked_networks.check_kernel(self._route, record.driver)
            link = stacked_networks.ensure_parent(self._route, record)
        else:
            link = bridge.ensure_bridge(self._route, record, publishes=self._publishes)
        known = self._up.get(record.network_id)
        if known is not None and known.record == record:
            addresses, addresses6 = known.addresses, known.addresses6
        else:
            own = [text for text in record.reserved if ":" not in text]
            addresses, addresses6 = None, None
            if record.subnet:
                addresses = ipam.AddressPool(self._db, record.interface, record.ip_range, own)
                addresses.prepare()
            if record.interface6 is not None:
                own = [text for text in record.reserved if ":" in text]
                addresses6 = ipam.AddressPool(self._db, record.interface6, record.ip_range6, own)
                addresses6.prepare()
        self._up[record.network_id] = made = BridgeNetwork(record, link, addresses, addresses6)
        return made

    def is_whole(self, record: NetworkRecord) -> bool:
        """Whether the bridge is there and up, has its address, and all that is plugged into it."""
        if record.is_stacked:
            return self._route.link(record.parent_link) is not None
        link = self._route.link(record.bridge_name)
        if link is None or not link.is_up:
            return False
        if not set(record.host_interfaces) <= {address.interface for address in self._route.addresses(link.ifindex)}:
            return False
        return self._up.get(record.network_id) is not None and self._up[record.network_id].link.ifindex == link.ifindex

    def plug_in(self, endpoint: EndpointRecord) -> None:
        """Connects an endpoint to its network's bridge again, should that be another link than before."""
        network = self._up.get(endpoint.network_id)
        if network is not None and not endpoint.is_stacked:
            endpoint_links.plug_in(self._route, endpoint, network.link, isolated=not network.record.icc)

    async def delete_strays(self, network: BridgeNetwork, live: frozenset[str]) -> None:
        """Deletes links of containers that don't live any more."""
        if network.record.is_stacked:
            return  # they went with their namespaces
        strays = [
            link.name
            for link in self._route.links(network.link.ifindex)
            if endpoint_links.is_endpoint(link) and link.alias not in live
        ]
        await self._leaving.delete_links(strays)

    def remove_nowait(self, record: NetworkRecord) -> None:
        """Takes away a bridge that was just made, with nothing plugged in; it may take some milliseconds."""
        if record.is_stacked:
            self._remove_parent(record)
            return
        link = self._route.link(record.bridge_name)
        if link is not None and link.kind == "bridge" and bridge.is_ours(link, record.network_id):
            self._route.execute((route.delete_link(link.name),))
        self._up.pop(record.network_id, None)

    async def remove(self, record: NetworkRecord) -> None:
        """Takes the network's bridge away, and what is plugged into it; one that was there before us stays."""
        if record.is_stacked:
            self._remove_parent(record)
            return
        link = self._route.link(record.bridge_name)
        if link is not None and link.kind == "bridge" and bridge.is_ours(link, record.network_id):
            ports = [port.name for port in self._route.links(link.ifindex) if endpoint_links.is_endpoint(port)]
            await self._leaving.delete_links([*ports, link.name])
        self._leaving.collect()
        self._up.pop(record.network_id, None)

    def _remove_parent(self, record: NetworkRecord) -> None:
        others = [network.record for network in self if network.record.network_id != record.network_id]
        name = stacked_networks.made_parent(self._route, record, others)
        if name:
            self._route.execute((route.delete_link(name),))
        self._up.pop(record.network_id, None)

    def connect(self, record: EndpointRecord, namespace: Netns, *, default_route: bool) -> None:
        """A recorded endpoint's links, addresses and default route."""
        network = self._up[record.network_id]
        if record.is_stacked:
            stacked_networks.connect(self._route, record, namespace, network.link, network.record)
            endpoint_links.configure(record, namespace, default_route=default_route)
            return
        self.rates_held &= endpoint_links.connect(
            self._route,
            record,
            namespace,
            network.link,
            mtu=network.record.mtu,
            isolated=not network.record.icc,
            default_route=default_route,
        )

    def set_rate(self, record: EndpointRecord, namespace: Netns) -> None:
        """After an endpoint's rate was changed; the link that it waited at may be left over."""
        self.rates_held &= endpoint_links.set_rate(self._route, record, namespace)

    def is_connected(self, record: EndpointRecord, namespace_fd: int) -> bool:
        """Whether an endpoint's link is there."""
        if record.is_stacked:
            return stacked_networks.is_there(self._route, record, namespace_fd)
        return self._route.link(record.link) is not None
