"""An endpoint's ports on the host: held, opened in the packet filter, moved to another endpoint, closed again.

It must never open a port that isn't recorded: a rebuild of the table would not know it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence

import msgspec

from tare import faults
from tare.errors import InvalidArgument, ResourceExhausted, Unsupported
from tare.kernel.netlink_route import RouteSocket
from tare.network import endpoint_links, flows
from tare.network.bridges import BridgeNetwork, Bridges
from tare.network.egress import Policy, both, parse_policy
from tare.network.egress_log import EgressLog
from tare.network.host_ports import RELAYED, HostPorts, PortTaken, overlap
from tare.network.records import ROUTED, EndpointRecord, NetworkRecord, PortBinding, PortRequest
from tare.network.relays import Relays
from tare.network.store import NetworkStore
from tare.network.table import Table, published

_log = logging.getLogger(__name__)

Bindings = tuple[PortBinding, ...]


class Publishing:
    """All published ports of one engine. table None: this engine writes no packet filter, so there are none."""

    def __init__(
        self, store: NetworkStore, host_ports: HostPorts, table: Table | None, bridges: Bridges, sock: RouteSocket
    ) -> None:
        self._store = store
        self._host_ports = host_ports
        self._table = table
        self._bridges = bridges
        self._route = sock
        self.egress_log = EgressLog(table.group if table is not None else 0, store)
        self._relays = Relays(host_ports, self._admits)
        self._forgetting: set[asyncio.Future[None]] = set()

    async def close(self) -> None:
        await self.wait_forgotten()
        await self._relays.stop()
        self.egress_log.close()
        self._host_ports.close()

    async def wait_forgotten(self) -> None:
        """Until no flow is tracked any more that an opened port makes wrong."""
        await asyncio.gather(*self._forgetting)

    def reserve(
        self, endpoint_id: str, network: NetworkRecord, container_name: str, ports: Sequence[PortRequest]
    ) -> Bindings:
        """Holds host ports for an endpoint; all or none. Raises ResourceExhausted with Docker's text."""
        if not ports:
            return ()
        if self._table is None:
            raise Unsupported("publishing ports without the engine's packet filter (--iptables=false)")
        routed, left = routed_ports(_on_ipv6(ports) if not network.subnet else ports, network)
        default = network.default_bind_address
        try:
            return routed + self._host_ports.reserve(
                tuple(
                    msgspec.structs.replace(port, host_ip=port.host_ip or default, both=_is_both(port, network))
                    for port in left
                ),
                ipv6=bool(network.subnet6),
            )
        except ResourceExhausted as error:
            owner = f" (by {self._owner_of(error)})" if isinstance(error, PortTaken) else ""
            raise ResourceExhausted(
                f"driver failed programming external connectivity on endpoint {container_name} ({endpoint_id}): "
                f"{error}{owner}"
            ) from error

    def _owner_of(self, taken: PortTaken) -> str:
        for record in self._store.endpoints():
            for port in record.ports:
                same = (port.protocol, port.host_port) == (taken.protocol, taken.port)
                if same and (":" in port.host_ip) == (":" in taken.address) and overlap(port.host_ip, taken.address):
                    return f"container {record.container_name or record.container_id[:12]}"
        return "this container itself"

    def give_back(self, bindings: Bindings) -> None:
        """Lets go of host ports that were reserved and never opened, or are closed."""
        self._relays.close(bindings)
        self._host_ports.release(bindings)

    def hold_again(self, record: EndpointRecord) -> None:
        """Holds the ports that an earlier process of this engine chose; who took one meanwhile waits in vain."""
        for binding in record.ports:
            if not binding.host_port:
                continue
            try:
                self._host_ports.hold(binding)
            except ResourceExhausted as error:
                _log.warning("container %s keeps its port, but: %s", record.container_id, error)
        self._relays.open(record, record.ports)

    def listen_again(self, record: EndpointRecord) -> None:
        """Hears of what an earlier process' containers are denied."""
        if self._table is not None and self._table.policies_of(record):
            self.egress_log.open()

    def open(self, record: EndpointRecord, bindings: Bindings) -> None:
        """Opens ports of a recorded endpoint."""
        if self._table is None or not bindings:
            return
        part = msgspec.structs.replace(record, ports=bindings)
        self._table.publish(part)
        self._relays.open(record, bindings)
        self.forget_misled_nowait(part)

    def _admits(self, client: ipaddress.IPv6Address) -> bool:
        """Whether a client may reach published ports by a relay: as the packet filter says of others."""
        for network in self._bridges:
            if network.record.internal and _is_beside(client, network):
                return False
        allow = self._table.allow if self._table is not None else []
        if not allow or client.is_loopback or any(client in subnet for subnet in allow if subnet.version == 6):
            return True
        return any(client.packed == address.interface.ip.packed for address in self._route.addresses())

    def forget_misled_nowait(self, record: EndpointRecord) -> None:
        """Sees to it that no datagram flow of before goes on missing the endpoint's ports."""
        ports = [port for port in published(record) if port.protocol == "udp" and port.host_ip.version == 4]
        if ports:
            future = asyncio.get_running_loop().run_in_executor(None, flows.forget_misled_datagrams, ports)
            self._forgetting.add(future)
            future.add_done_callback(self._forgetting.discard)

    def check_bind(self, record: EndpointRecord, network: NetworkRecord) -> tuple[Policy, ...]:
        """What an endpoint is held to. Raises InvalidArgument, Unsupported for what can't be."""
        policies = self.check_policies(network, record.egress)
        if policies and not record.guarded:
            raise InvalidArgument(
                f"an egress policy needs the guard, which the container on {network.name} goes without"
            )
        return policies

    def check_policies(self, network: NetworkRecord, egress: str) -> tuple[Policy, ...]:
        """What a container with a policy would be held to on a network. Raises InvalidArgument, Unsupported."""
        policies = both(parse_policy(network.egress), parse_policy(egress))
        if not policies:
            return policies
        if self._table is None or not self._table.guard.is_there:
            raise Unsupported("egress policies without the engine's packet filter, or without one for bridges")
        if network.is_stacked:
            raise InvalidArgument(
                f"an egress policy needs a bridge network: the host doesn't see what leaves {network.name} "
                f"({network.driver})"
            )
        if not network.guard:
            raise InvalidArgument(f"an egress policy needs the guard, which network {network.name} goes without")
        if any(policy.has_names for policy in policies) and not network.names_containers:
            raise InvalidArgument(
                f"an egress policy with names needs a network of the user's own: on {network.name} names aren't served"
            )
        return policies

    def bind(self, record: EndpointRecord, network: NetworkRecord) -> None:
        """Holds a recorded endpoint to its egress policies; before its link is up."""
        if self.check_bind(record, network) and self._table is not None:
            self.egress_log.open()
            self._table.bind(record)
            faults.point("network.egress.bound")

    def unbind(self, record: EndpointRecord, *, always: bool = False) -> None:
        """After an endpoint with a policy was forgotten, or (always) has another one."""
        if self._table is None or not record.link:
            return
        if always:
            self.egress_log.open()
        if always or self._table.policies_of(record):
            self._table.rebuild()

    def close_all(self, record: EndpointRecord) -> None:
        """Closes all ports of an endpoint that is about to be forgotten."""
        if record.ports and self._table is not None:
            self._table.unpublish(record)
            faults.point("network.release.unpublished")
        self._relays.drop(record.endpoint_id)
        self.give_back(record.ports)

    def add(self, record: EndpointRecord, ports: Sequence[PortRequest], network: NetworkRecord) -> None:
        """Publishes more ports of a live endpoint; all or none."""
        bindings = self.reserve(record.endpoint_id, network, record.container_name, ports)
        try:
            changed = msgspec.structs.replace(record, ports=(*record.ports, *bindings))
            self._store.put_endpoint(changed)
            faults.point("network.publish.recorded")
            self._open_live(changed, bindings)
        except BaseException:
            self._store.put_endpoint(record)
            self.give_back(bindings)
            raise

    def take_back(self, record: EndpointRecord, chosen: Callable[[PortBinding], bool]) -> int:
        """Closes some ports of a live endpoint; returns how many."""
        gone = tuple(port for port in record.ports if chosen(port))
        if gone:
            closed = set(gone)
            kept = tuple(port for port in record.ports if port not in closed)
            self._store.put_endpoint(msgspec.structs.replace(record, ports=kept))
            faults.point("network.unpublish.recorded")
            if self._table is not None:
                self._table.unpublish(msgspec.structs.replace(record, ports=gone), is_recorded=False)
            self.give_back(gone)
        return len(gone)

    def move(self, source: EndpointRecord, target: EndpointRecord) -> EndpointRecord:
        """Lets source's ports lead to another endpoint of the container; returns what is left of source."""
        left = msgspec.structs.replace(source, ports=())
        changed = msgspec.structs.replace(target, ports=(*target.ports, *source.ports))
        self._store.put_endpoint(left, changed)
        faults.point("network.ports.moved")
        if self._table is not None:
            self._table.unpublish(source, is_recorded=False)
        self._relays.close(source.ports)
        self._open_live(changed, source.ports)
        return left

    def _open_live(self, record: EndpointRecord, bindings: Bindings) -> None:
        self.open(record, bindings)
        network = self._bridges.get(record.network_id)
        endpoint_links.set_port_flags(self._route, record, isolated=network is not None and not network.record.icc)


def _on_ipv6(ports: Sequence[PortRequest]) -> list[PortRequest]:
    """Ports of a network without IPv4: at all addresses means all IPv6 addresses."""
    for port in ports:
        if port.host_ip and ":" not in port.host_ip:
            raise InvalidArgument(f"a container without IPv4 can't be reached by the host's address {port.host_ip}")
    return [msgspec.structs.replace(port, host_ip=port.host_ip or "::") for port in ports]


def _is_both(port: PortRequest, network: NetworkRecord) -> bool:
    """Whether a port is published on all addresses of both kinds."""
    if port.host_ip or network.default_bind_address != "0.0.0.0":
        return False
    return network.gateway_mode(6) != ROUTED if network.subnet6 else port.protocol in RELAYED


def _is_beside(client: ipaddress.IPv6Address, network: BridgeNetwork) -> bool:
    """Whether a client is on a network's bridge."""
    if client.is_link_local:
        return client.scope_id == str(network.link.ifindex)
    return bool(network.record.subnet6) and client in ipaddress.IPv6Network(network.record.subnet6)


def routed_ports(ports: Sequence[PortRequest], network: NetworkRecord) -> tuple[Bindings, list[PortRequest]]:
    """(ports that are published at the container's own addresses, ports that need one of the host's).

    By the network's gateway modes: of a port on addresses of both kinds either may be the one or the other.
    """
    routed: list[PortBinding] = []
    left: list[PortRequest] = []
    versions = [version for version, subnet in ((4, network.subnet), (6, network.subnet6)) if subnet]
    for port in ports:
        asked = [version for version in versions if not port.host_ip or (":" in port.host_ip) == (version == 6)]
        own = [version for version in asked if network.gateway_mode(version) == ROUTED]
        routed += [
            PortBinding(port.container_port, port.protocol, "::" if version == 6 else "0.0.0.0", 0) for version in own
        ]
        if 4 in own and asked == [4, 6] and 6 not in own:
            left.append(msgspec.structs.replace(port, host_ip="::"))
        elif not own or (4 not in own and asked != own):
            left.append(port)
    return tuple(dict.fromkeys(routed)), left
