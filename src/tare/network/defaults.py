"""Docker's three default networks: made once per data root, brought in line with the settings at each start."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence

import msgspec

from tare.kernel.netlink_route import RouteSocket
from tare.network import ipam
from tare.network.records import BRIDGE, HOST, NONE, NetworkRecord, NetworkSettings
from tare.network.store import NetworkStore
from tare.values.ids import new_id

_DRIVERS = {BRIDGE: "bridge", HOST: "host", NONE: "null"}


def ensure_networks(
    store: NetworkStore,
    settings: NetworkSettings,
    sock: RouteSocket,
    reached: Sequence[ipaddress.IPv4Network] = (),
) -> None:
    """Records the default networks that are missing, and the bridge's settings if they changed; ids stay.

    reached: subnets behind an uplink, which are to stay reachable too.
    """
    names = (BRIDGE, HOST, NONE) if settings.enabled else (HOST, NONE)
    for name in names:
        old = store.network(name)
        record = old or NetworkRecord(network_id=new_id(), name=name, driver=_DRIVERS[name], created_ns=time.time_ns())
        if name == BRIDGE:
            record = _with_settings(record, settings, sock, reached)
        if record != old:
            store.put_network(record)


def _with_settings(
    record: NetworkRecord, settings: NetworkSettings, sock: RouteSocket, reached: Sequence[ipaddress.IPv4Network]
) -> NetworkRecord:
    if settings.subnet is not None:
        interface = ipam.parse_subnet(settings.subnet)
    elif record.subnet:
        interface = record.interface
    else:
        interface = _present_address(settings, sock) or _free_subnet(settings, [*reached_subnets(sock), *reached])
    second = None
    if settings.ipv6:
        second = ipam.parse_subnet6(settings.subnet6) if settings.subnet6 else ipam.own_subnet6(record.network_id)
    return msgspec.structs.replace(
        record,
        ipv6=settings.ipv6,
        subnet6=str(second.network) if second else "",
        gateway6=str(second.ip) if second else "",
        subnet=str(interface.network),
        gateway=str(interface.ip),
        bridge_name=settings.bridge_name,
        mtu=settings.mtu,
        icc=settings.icc,
        guard=settings.guard,
        ip_masq=settings.ip_masq,
        default_bind_address=settings.default_bind_address,
    )


def _present_address(settings: NetworkSettings, sock: RouteSocket) -> ipaddress.IPv4Interface | None:
    """The address that the bridge has already: made by the administrator, or left by a lost data root."""
    link = sock.link(settings.bridge_name)
    if link is None:
        return None
    for address in sock.addresses(link.ifindex):
        if isinstance(address.interface, ipaddress.IPv4Interface):
            return address.interface
    return None


def _free_subnet(settings: NetworkSettings, taken: Sequence[ipaddress.IPv4Network]) -> ipaddress.IPv4Interface:
    return ipam.choose_subnet(settings.address_pools or ipam.DEFAULT_POOLS, taken)


def reached_subnets(sock: RouteSocket) -> list[ipaddress.IPv4Network]:
    """The subnets that this host has routes to, or addresses in."""
    taken = [route.destination for route in sock.routes() if isinstance(route.destination, ipaddress.IPv4Network)]
    return taken + [
        address.interface.network
        for address in sock.addresses()
        if isinstance(address.interface, ipaddress.IPv4Interface)
    ]
