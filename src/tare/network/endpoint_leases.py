"""An endpoint's record, and the addresses and the MAC that it gets: all in one transaction.

It must never hand out an address or a MAC that somebody on the network has.
"""

from __future__ import annotations

from tare.errors import Forbidden, InvalidArgument
from tare.network import bridge, endpoint_links
from tare.network.bridges import BridgeNetwork
from tare.network.ip_families import Ip
from tare.network.ipam import AddressPool
from tare.network.records import IPVLAN, ISOLATED, EndpointRecord, EndpointRequest, NetworkRecord, PortBinding
from tare.network.store import NetworkStore
from tare.storage.database import Database, Transaction

_NOT_CONFIGURED = "user specified IP address is supported only when connecting to networks with user configured subnets"


def asked_addresses(
    network: NetworkRecord, to: BridgeNetwork, request: EndpointRequest
) -> list[tuple[AddressPool, Ip]]:
    """The addresses that were asked for, each with its pool. Raises InvalidArgument with Docker's texts."""
    found = []
    for text, asked, pool in (
        (request.ip, network.asked, to.addresses),
        (request.ip6, network.asked6, to.addresses6),
    ):
        if text:
            if asked is None:
                raise InvalidArgument(_NOT_CONFIGURED)
            if pool is None:  # an IPv6 subnet was given, but the network is without IPv6: unheeded, as with Docker
                continue
            found.append((pool, pool.parse_static(text)))
    return found


def record_endpoint(
    db: Database,
    store: NetworkStore,
    container_id: str,
    endpoint_id: str,
    request: EndpointRequest,
    to: BridgeNetwork,
    *,
    inside: str,
    bindings: tuple[PortBinding, ...],
    guards: bool,
) -> EndpointRecord:
    """Leases what the endpoint needs, and records it. guards: whether ports can be guarded at all."""
    link = endpoint_links.name_of(endpoint_id)
    network = to.record
    with db.transaction(durable=False) as tx:
        address = _lease(tx, to.addresses, request.ip, endpoint_id, link, to.title) if to.addresses else None
        second = _lease(tx, to.addresses6, request.ip6, endpoint_id, link, to.title) if to.addresses6 else None
        record = EndpointRecord(
            container_id=container_id,
            endpoint_id=endpoint_id,
            network=network.name,
            network_id=network.network_id,
            container_name=request.container_name,
            link=link,
            ip=str(address or ""),
            prefix=to.addresses.subnet.prefixlen if to.addresses else 0,
            gateway=_gateway(network, to.addresses) if to.addresses else "",
            ip6=str(second or ""),
            prefix6=to.addresses6.subnet.prefixlen if to.addresses6 else 0,
            gateway6=_gateway(network, to.addresses6) if to.addresses6 else "",
            mac=_mac(tx, store, request, address or second, to),
            ports=bindings,
            inside=inside,
            names=request.names,
            links=request.links,
            nameservers=request.nameservers,
            link_locals=request.link_locals,
            priority=request.priority,
            egress=request.egress,
            rate=request.rate,
            guarded=network.guard and guards and not network.is_stacked,
            driver=network.driver,
            routed_by_parent=network.driver == IPVLAN and network.mode in ("l3", "l3s"),
        )
        store.add_endpoint(tx, record)
    return record


def _gateway(network: NetworkRecord, pool: AddressPool) -> str:
    """Whom the endpoint asks to forward: on a bridge the host itself, which is there even if it doesn't."""
    if (network.is_stacked and network.leads_nowhere) or network.gateway_mode(pool.subnet.version) == ISOLATED:
        return ""
    return str(pool.gateway)


def _lease(tx: Transaction, pool: AddressPool, asked: str, endpoint_id: str, link: str, title: str) -> Ip:
    if not asked:
        return pool.take(tx, endpoint_id, link, title)
    address = pool.parse_static(asked)
    pool.take_static(tx, endpoint_id, link, address)
    return address


def _mac(tx: Transaction, store: NetworkStore, request: EndpointRequest, address: Ip | None, to: BridgeNetwork) -> str:
    """The MAC asked for, or the address's own. Raises Forbidden for one that somebody on the network has."""
    if to.record.driver == IPVLAN:
        return to.link.mac
    own = bridge.mac_of(address) if address is not None else bridge.random_mac()
    mac = (request.mac or own).lower()
    if mac == bridge.mac_of(to.record.interfaces[0].ip) or store.has_mac(tx, to.record.network_id, mac):
        if request.mac:
            raise Forbidden(f"MAC address {mac} is already in use on network {to.record.name}")
        return bridge.random_mac()  # a neighbour asked for the one that goes with this address
    return request.mac or own
