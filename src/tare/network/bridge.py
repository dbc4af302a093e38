"""The bridge of one network on the host: the link, its address, its sysctls. Every function may be repeated.

It must never change a link that belongs to somebody else: a bridge of ours says so in its alias.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
from pathlib import Path

from tare import faults
from tare.errors import Conflict, InvalidArgument, KernelError
from tare.kernel import netlink_route as route
from tare.kernel.namespaces import write_proc
from tare.kernel.netlink_route import Link, RouteSocket
from tare.network.records import NetworkRecord

_NAME = re.compile(r"[^\s/:%]{1,15}\Z")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")
_SYS = Path("/proc/sys/net")
_ALIAS = "tare network "


def check_name(name: str) -> None:
    if not _NAME.match(name) or name in (".", ".."):
        raise InvalidArgument(f"invalid bridge name: {name!r} (at most 15 characters, no space, '/', ':' or '%')")


def mac_of(address: ipaddress.IPv4Address) -> str:
    """02:42 and the address: one address always has one MAC, so that neighbours' caches never point elsewhere."""
    return (b"\x02\x42" + address.packed).hex(":")


def random_mac() -> str:
    """One that goes with no address: locally administered (IEEE 802c), as mac_of's."""
    return (b"\x02\x43" + os.urandom(4)).hex(":")


def is_unicast_mac(text: str) -> bool:
    """Whether text is one host's MAC: six bytes, the group bit clear, not all zero."""
    return bool(_MAC.match(text)) and not int(text[1], 16) & 1 and text.strip("0:") != ""


def ensure_bridge(sock: RouteSocket, record: NetworkRecord, *, publishes: bool) -> Link:
    """The bridge, up and with its address; made if it isn't there. publishes: whether there are rules to guard it."""
    name, interface, mtu, network_id = record.bridge_name, record.interface, record.mtu, record.network_id
    link = sock.link(name)
    if link is None:
        sock.execute((route.new_bridge(name, mac_of(interface.ip), mtu), route.set_identity(name, _ALIAS + network_id)))
        faults.point("network.bridge.create")
        link = sock.link(name)
        if link is None:
            raise KernelError(errno.ENODEV, "RTM_GETLINK", name)
    elif link.kind != "bridge":
        raise Conflict(f"there is a link {name} already, and it isn't a bridge")
    elif link.alias.startswith(_ALIAS) and link.alias != _ALIAS + network_id:
        if sock.links(link.ifindex):
            raise Conflict(
                f"the bridge {name} belongs to another engine that has containers; give this one another name"
            )
        sock.execute((route.set_identity(name, _ALIAS + network_id),))
    write_sysctls(name, publishes)
    present = {address.interface for address in sock.addresses(link.ifindex)}
    if interface not in present:
        sock.execute((route.new_address(link.ifindex, interface),))
    if link.mtu != mtu:
        sock.execute((route.set_mtu(name, mtu),))
    if not link.is_up:
        sock.execute((route.set_up(name),))
    faults.point("network.bridge.up")
    return link


def is_ours(link: Link, network_id: str) -> bool:
    return link.alias == _ALIAS + network_id


def drop_other_addresses(sock: RouteSocket, link: Link, keep: ipaddress.IPv4Interface) -> None:
    """Takes addresses of an earlier subnet off the bridge."""
    others = [item.interface for item in sock.addresses(link.ifindex) if item.interface.version == 4]
    for interface in others:
        if interface != keep:
            sock.execute((route.delete_address(link.ifindex, interface),))


def write_sysctls(name: str, publishes: bool) -> None:
    """What the bridge needs of the kernel.

    route_localnet: 127.0.0.1:port on the host may lead to a container; only together with the rules that keep
    containers from using it the other way round (CVE-2020-8558). No IPv6, so no router advertisements that a
    container could send to the host (CVE-2020-13401), and no link-local way to the host's services.
    """
    write_proc(str(_SYS / "ipv4/conf" / name / "route_localnet"), "1" if publishes else "0")
    ipv6 = _SYS / "ipv6/conf" / name
    if ipv6.exists():
        write_proc(str(ipv6 / "accept_ra"), "0")
        write_proc(str(ipv6 / "disable_ipv6"), "1")


def ensure_forwarding() -> bool:
    """Switches IPv4 forwarding on; True if it was off. Never off again: others may rely on it by then."""
    path = _SYS / "ipv4/ip_forward"
    if path.read_text(encoding="ascii").strip() != "0":
        return False
    write_proc(str(path), "1")
    return True
