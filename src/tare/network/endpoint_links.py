"""An endpoint's pair of links: a bridge port on the host, named for the endpoint, and eth0, eth1 … in the container.

It must never wait, nor remember: the port's alias is the container's id, and that is how it is found again.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Collection

from tare.errors import KernelError
from tare.kernel import netlink_route as route
from tare.kernel import netlink_traffic as traffic
from tare.kernel.netlink import Request
from tare.kernel.netlink_route import Link, RouteSocket
from tare.kernel.netns import Netns
from tare.network import outgoing, rates
from tare.network.records import EndpointRecord
from tare.values.ids import is_id

_PREFIX = "ve"


def name_of(endpoint_id: str) -> str:
    """The host's link of an endpoint; 14 characters of the 15 that a link's name may have."""
    return _PREFIX + endpoint_id[:12]


def is_endpoint(link: Link) -> bool:
    """Whether a link is one of ours."""
    return link.kind == "veth" and link.name.startswith(_PREFIX) and is_id(link.alias)


def connect(
    sock: RouteSocket,
    record: EndpointRecord,
    namespace: Netns,
    bridge: Link,
    *,
    mtu: int,
    isolated: bool,
    default_route: bool,
) -> bool:
    """The pair of links, the address and the default route: two batches on the host, two inside.

    Returns whether the endpoint's rate, if it has one, is out of the container's reach in both directions.
    """
    peer = route.VethPeer(record.inside, record.mac, namespace.namespace_fd)
    made = sock.execute(
        (
            route.new_veth(record.link, mtu, peer, bridge.ifindex),
            route.set_identity(record.link, record.container_id),
            _port_flags(record, isolated),
            route.get_link(record.link),
        )
    )
    port = route.parse_link(made[-1][0])
    limits = rates.requests(port.ifindex, record.rate, had=False)
    sock.execute((*_address_behind(port.ifindex, record), *limits, route.set_up(record.link)))
    held = record.rate is None or outgoing.limit(sock, record, port.ifindex)
    configure(record, namespace, default_route=default_route, rate=None if held else record.rate)
    return held


def configure(record: EndpointRecord, namespace: Netns, *, default_route: bool, rate: rates.Rate | None = None) -> None:
    """The container's end: addresses, up, default route. rate: to be held there."""
    inside = RouteSocket(namespace.rtnetlink_socket_fd)
    try:
        link = inside.link(record.inside)
        if link is None:
            raise KernelError(errno.ENODEV, "RTM_GETLINK", record.inside)
        own = [f"{record.ip}/{record.prefix}"] if record.ip else []
        own += [f"{address}/16" for address in record.link_locals]
        if record.ip6:
            own.append(f"{record.ip6}/{record.prefix6}")
        requests = [
            *(route.new_address(link.ifindex, ipaddress.ip_interface(text)) for text in own),
            *(() if record.ip6 else (route.set_quiet(link.ifindex),)),
            *rates.requests(link.ifindex, rate, had=False),
            route.set_up_index(link.ifindex),
        ]
        if default_route:
            requests += [route.new_default_route(ipaddress.ip_address(text)) for text in gateways_of(record)]
        inside.execute(requests)
    finally:
        inside.detach()


def set_rate(sock: RouteSocket, record: EndpointRecord, namespace: Netns) -> bool:
    """Makes an endpoint's pair of links as fast as its record says, both ways; returns as `connect`."""
    port = sock.link(record.link)
    held = record.rate is None or (port is not None and outgoing.limit(sock, record, port.ifindex))
    if port is not None and record.rate is None:
        sock.execute((traffic.delete_ingress(port.ifindex),))
    own = None if held else record.rate
    inside = RouteSocket(namespace.rtnetlink_socket_fd)
    try:
        for end, name, rate in ((sock, record.link, record.rate), (inside, record.inside, own)):
            link = end.link(name)
            if link is not None:
                end.execute(rates.requests(link.ifindex, rate, had=True))
    finally:
        inside.detach()
    return held


def gateways_of(record: EndpointRecord) -> list[str]:
    """Where an endpoint's default routes lead: one for each kind of address that it has."""
    return [text for text in (record.gateway, record.gateway6) if text]


def lead_out(namespace: Netns, gateways: Collection[str], all_gateways: Collection[str]) -> None:
    """Makes a container's default routes lead to these gateways, and to no other of `all_gateways`."""
    versions = {ipaddress.ip_address(text).version for text in gateways}
    others = [text for text in all_gateways if ipaddress.ip_address(text).version not in versions]
    requests = [route.replace_default_route(ipaddress.ip_address(text)) for text in gateways]
    requests += [route.delete_default_route(ipaddress.ip_address(text)) for text in others]
    if not requests:
        return
    inside = RouteSocket(namespace.rtnetlink_socket_fd)
    try:
        inside.execute(requests)
    finally:
        inside.detach()


def set_port_flags(sock: RouteSocket, record: EndpointRecord, *, isolated: bool) -> None:
    """After the endpoint's published ports changed."""
    sock.execute((_port_flags(record, isolated),))


def plug_in(sock: RouteSocket, record: EndpointRecord, bridge: Link, *, isolated: bool) -> None:
    """After the bridge was deleted and made anew: what was plugged into the old one belongs into this, and is up."""
    link = sock.link(record.link) if record.link else None
    if link is None:
        return
    if link.master != bridge.ifindex:
        flags = (route.set_master(link.name, bridge.ifindex), _port_flags(record, isolated))
        sock.execute((*flags, *_address_behind(link.ifindex, record)))
    if not link.is_up:
        sock.execute((route.set_up(link.name),))


def _port_flags(record: EndpointRecord, isolated: bool) -> Request:
    """hairpin: with br_netfilter a container's packet to its own published port goes back where it came from."""
    return route.set_bridge_port(record.link, hairpin=bool(record.ports), isolated=isolated, learns=not record.guarded)


def _address_behind(index: int, record: EndpointRecord) -> tuple[Request, ...]:
    """A guarded port learns nothing and is sent nothing that is for others: the bridge is told who is behind it."""
    return (route.set_bridge_address(index, record.mac),) if record.guarded else ()
