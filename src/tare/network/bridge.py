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
from tare.errors import Conflict, InvalidArgument, KernelError, Unsupported
from tare.kernel import netlink_route as route
from tare.kernel.namespaces import write_proc
from tare.kernel.netlink_route import Link, RouteSocket
from tare.network.records import NetworkRecord

_NAME = re.compile(r"[^\s/:%]{1,15}\Z")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")
_SYS = Path("/proc/sys/net")
ALIAS = "tare network "
_RTF_DEFAULT = 0x10000  # linux/ipv6_route.h: a default route that was learned of a router
_LINK_LOCAL = ipaddress.IPv6Interface("fe80::1/64")  # what the kernel asks from when it forwards (RFC 4861)


def check_name(name: str) -> None:
    if not _NAME.match(name) or name in (".", ".."):
        raise InvalidArgument(f"invalid bridge name: {name!r} (at most 15 characters, no space, '/', ':' or '%')")


def check_link_name(name: str) -> None:
    """Raises InvalidArgument for what can't be the name of a container's link."""
    if not _NAME.match(name) or name in (".", "..", "lo"):
        raise InvalidArgument(f"invalid interface name: {name!r} (at most 15 characters, no space, '/', ':' or '%')")


def mac_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """02:42 and the address: one address always has one MAC, so that neighbours' caches never point elsewhere.

    Of an IPv6 address its last four bytes, which differ within a network of any common size.
    """
    return (b"\x02\x42" + address.packed[-4:]).hex(":")


def random_mac() -> str:
    """One that goes with no address: locally administered (IEEE 802c), as mac_of's."""
    return (b"\x02\x43" + os.urandom(4)).hex(":")


def is_unicast_mac(text: str) -> bool:
    """Whether text is one host's MAC: six bytes, the group bit clear, not all zero."""
    return bool(_MAC.match(text)) and not int(text[1], 16) & 1 and text.strip("0:") != ""


def ensure_bridge(sock: RouteSocket, record: NetworkRecord, *, publishes: bool) -> Link:
    """The bridge, up and with its address; made if it isn't there. publishes: whether there are rules to guard it."""
    name, mtu, network_id = record.bridge_name, record.mtu, record.network_id
    link = sock.link(name)
    if link is None:
        sock.execute(
            (route.new_bridge(name, mac_of(record.interfaces[0].ip), mtu), route.set_identity(name, ALIAS + network_id))
        )
        faults.point("network.bridge.create")
        link = sock.link(name)
        if link is None:
            raise KernelError(errno.ENODEV, "RTM_GETLINK", name)
    elif link.kind != "bridge":
        raise Conflict(f"there is a link {name} already, and it isn't a bridge")
    elif link.alias.startswith(ALIAS) and link.alias != ALIAS + network_id:
        if sock.links(link.ifindex):
            raise Conflict(
                f"the bridge {name} belongs to another engine that has containers; give this one another name"
            )
        sock.execute((route.set_identity(name, ALIAS + network_id),))
    write_sysctls(name, publishes, ipv6=bool(record.subnet6))
    present = {address.interface for address in sock.addresses(link.ifindex)}
    for interface in (*record.host_interfaces, *((_LINK_LOCAL,) if record.subnet6 else ())):
        if interface not in present:
            sock.execute((route.new_address(link.ifindex, interface),))
    if link.mtu != mtu:
        sock.execute((route.set_mtu(name, mtu),))
    if not link.is_up:
        sock.execute((route.set_up(name),))
    faults.point("network.bridge.up")
    return link


def is_ours(link: Link, network_id: str) -> bool:
    return link.alias == ALIAS + network_id


def drop_other_addresses(sock: RouteSocket, link: Link, keep: ipaddress.IPv4Interface) -> None:
    """Takes addresses of an earlier subnet off the bridge."""
    others = [item.interface for item in sock.addresses(link.ifindex) if item.interface.version == 4]
    for interface in others:
        if interface != keep:
            sock.execute((route.delete_address(link.ifindex, interface),))


def write_sysctls(name: str, publishes: bool, *, ipv6: bool = False) -> None:
    """What the bridge needs of the kernel.

    route_localnet: 127.0.0.1:port on the host may lead to a container; only together with the rules that keep
    containers from using it the other way round (CVE-2020-8558). IPv6 only where the network has it, and never router
    advertisements that a container could send to the host (CVE-2020-13401).
    """
    write_proc(str(_SYS / "ipv4/conf" / name / "route_localnet"), "1" if publishes else "0")
    own = _SYS / "ipv6/conf" / name
    if own.exists():
        write_proc(str(own / "accept_ra"), "0")
        write_proc(str(own / "disable_ipv6"), "0" if ipv6 else "1")
    elif ipv6:
        raise Unsupported(f"this kernel has no IPv6, which network {name} wants")


def ensure_forwarding(version: int = 4) -> bool:
    """Switches forwarding on; True if it was off. Never off again: others may rely on it by then."""
    path = _SYS / ("ipv4/ip_forward" if version == 4 else "ipv6/conf/all/forwarding")
    if path.read_text(encoding="ascii").strip() != "0":
        return False
    if version == 6:
        _keep_routers()
    write_proc(str(path), "1")
    return True


def _keep_routers() -> None:
    """Lets the host keep the default routes that routers told it: who forwards forgets them, and listens no more.

    Unless a link says otherwise (accept_ra 2, ip-sysctl.rst): those that lead to such a router do from now on.
    """
    for line in Path("/proc/thread-self/net/ipv6_route").read_text(encoding="ascii").splitlines():
        fields = line.split()
        own = _SYS / "ipv6/conf" / fields[9] / "accept_ra"
        if int(fields[8], 16) & _RTF_DEFAULT and own.exists() and own.read_text(encoding="ascii").strip() == "1":
            write_proc(str(own), "2")
