"""rtnetlink: links, addresses and routes of one network namespace (man 7 rtnetlink).

The functions that make a `Request` send nothing, so that a caller can put several into one batch. It must never decide
names or addresses: that is the network room's work.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import NamedTuple

from tare.errors import KernelError
from tare.kernel.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkSocket,
    Reply,
    Request,
    attribute,
    nested,
    parse_attributes,
    parse_text,
    parse_u32,
    text,
    u8,
    u32,
)

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 10, 18, 20
_IFLA_AF_SPEC, _IFLA_NET_NS_FD = 26, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_IFLA_BRPORT_MODE, _IFLA_BRPORT_LEARNING, _IFLA_BRPORT_UNICAST_FLOOD, _IFLA_BRPORT_ISOLATED = 4, 8, 9, 33
_RTM_NEWNEIGH, _NDA_LLADDR, _NUD_NOARP, _NTF_MASTER = 28, 2, 0x40, 0x04

_IFA_F_NODAD = 0x02
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 3, 0, 1

IFF_UP = 0x1

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


class Link(NamedTuple):
    """What the kernel says of one network interface."""

    ifindex: int
    name: str
    kind: str
    mac: str
    mtu: int
    is_up: bool
    master: int
    alias: str


class Address(NamedTuple):
    """One address on a link."""

    ifindex: int
    interface: Interface


class Route(NamedTuple):
    """One route of the main table; `destination` is None for a default route."""

    destination: Subnet | None
    gateway: Ip | None
    ifindex: int


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, change)


def new_bridge(name: str, mac: str, mtu: int) -> Request:
    """Creates a bridge. Its MAC is given: without one it would change with the ports', behind neighbours' backs."""
    body = (
        _ifinfo()
        + text(_IFLA_IFNAME, name)
        + u32(_IFLA_MTU, mtu)
        + attribute(_IFLA_ADDRESS, _mac_bytes(mac))
        + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
    )
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWLINK", name)


class VethPeer(NamedTuple):
    """The far end of a veth pair, made directly inside another namespace."""

    name: str
    mac: str
    namespace_fd: int


def new_veth(name: str, mtu: int, peer: VethPeer, master: int = 0) -> Request:
    """Creates a pair of links: `name` here (a port of bridge `master`), `peer` in its namespace. Both are down."""
    far = nested(
        _VETH_INFO_PEER,
        _ifinfo(),
        text(_IFLA_IFNAME, peer.name),
        u32(_IFLA_MTU, mtu),
        attribute(_IFLA_ADDRESS, _mac_bytes(peer.mac)),
        u32(_IFLA_NET_NS_FD, peer.namespace_fd),
    )
    body = (
        _ifinfo()
        + text(_IFLA_IFNAME, name)
        + u32(_IFLA_MTU, mtu)
        + (u32(_IFLA_MASTER, master) if master else b"")
        + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), nested(_IFLA_INFO_DATA, far))
    )
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWLINK", name)


def set_identity(name: str, alias: str) -> Request:
    """Writes whose the link is into its alias, and keeps IPv6 from making up an address when it comes up."""
    quiet = nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, u8(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE)))
    body = _ifinfo() + text(_IFLA_IFNAME, name) + text(_IFLA_IFALIAS, alias) + quiet
    return Request(_RTM_NEWLINK, 0, body, "RTM_SETLINK", name, (errno.EAFNOSUPPORT,))


def set_quiet(index: int) -> Request:
    """Keeps IPv6 from making up an address when a link comes up."""
    quiet = nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, u8(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE)))
    return Request(_RTM_NEWLINK, 0, _ifinfo(index) + quiet, "RTM_SETLINK", f"#{index}", (errno.EAFNOSUPPORT,))


def set_bridge_port(name: str, hairpin: bool, isolated: bool, learns: bool = True) -> Request:
    """Bridge port flags. hairpin: a frame may leave where it came in; isolated: no frames between isolated ports.

    learns: the bridge learns addresses from the port's frames, and sends it frames to addresses that it doesn't know.
    """
    flags = nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_SLAVE_KIND, "bridge"),
        nested(
            _IFLA_INFO_SLAVE_DATA,
            u8(_IFLA_BRPORT_MODE, hairpin),
            u8(_IFLA_BRPORT_ISOLATED, isolated),
            u8(_IFLA_BRPORT_LEARNING, learns),
            u8(_IFLA_BRPORT_UNICAST_FLOOD, learns),
        ),
    )
    body = _ifinfo() + text(_IFLA_IFNAME, name) + flags
    return Request(_RTM_NEWLINK, 0, body, "RTM_SETLINK", name)


def set_bridge_address(index: int, mac: str) -> Request:
    """Tells a bridge for good that this MAC is behind its port `index` (man 8 bridge, "fdb replace … static")."""
    body = _NDMSG.pack(socket.AF_BRIDGE, index, _NUD_NOARP, _NTF_MASTER, 0)
    body += attribute(_NDA_LLADDR, _mac_bytes(mac))
    return Request(_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, "RTM_NEWNEIGH", mac)


def set_up(name: str) -> Request:
    body = _ifinfo(flags=IFF_UP, change=IFF_UP) + text(_IFLA_IFNAME, name)
    return Request(_RTM_NEWLINK, 0, body, "RTM_SETLINK", name)


def set_up_index(index: int) -> Request:
    return Request(_RTM_NEWLINK, 0, _ifinfo(index, IFF_UP, IFF_UP), "RTM_SETLINK", f"#{index}")


def set_mtu(name: str, mtu: int) -> Request:
    return Request(_RTM_NEWLINK, 0, _ifinfo() + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu), "RTM_SETLINK", name)


def set_master(name: str, master: int) -> Request:
    body = _ifinfo() + text(_IFLA_IFNAME, name) + u32(_IFLA_MASTER, master)
    return Request(_RTM_NEWLINK, 0, body, "RTM_SETLINK", name)


def get_link(name: str) -> Request:
    return Request(_RTM_GETLINK, 0, _ifinfo() + text(_IFLA_IFNAME, name), "RTM_GETLINK", name)


def delete_link(name: str) -> Request:
    """Deletes a link. A veth's takes 13 to 27 ms (it waits for RCU): never on a hot path."""
    body = _ifinfo() + text(_IFLA_IFNAME, name)
    return Request(_RTM_DELLINK, 0, body, "RTM_DELLINK", name, (errno.ENODEV,))


def _address_request(kind: int, flags: int, index: int, interface: Interface, tolerate: tuple[int, ...]) -> Request:
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    packed = interface.ip.packed
    nodad = 0 if interface.version == 4 else _IFA_F_NODAD  # the address is leased: nobody else has it
    body = _IFADDRMSG.pack(family, interface.network.prefixlen, nodad, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if interface.version == 4 and interface.network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    call = "RTM_NEWADDR" if kind == _RTM_NEWADDR else "RTM_DELADDR"
    return Request(kind, flags, body, call, str(interface), tolerate)


def new_address(index: int, interface: Interface) -> Request:
    return _address_request(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, interface, (errno.EEXIST,))


def delete_address(index: int, interface: Interface) -> Request:
    return _address_request(_RTM_DELADDR, 0, index, interface, (errno.EADDRNOTAVAIL,))


def _default_route(gateway: Ip) -> bytes:
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    body = _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
    return body + attribute(_RTA_GATEWAY, gateway.packed)


def new_default_route(gateway: Ip) -> Request:
    flags = NLM_F_CREATE | NLM_F_EXCL
    return Request(_RTM_NEWROUTE, flags, _default_route(gateway), "RTM_NEWROUTE", f"default via {gateway}")


def replace_default_route(gateway: Ip) -> Request:
    """Makes the default route lead there, whichever there was."""
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return Request(_RTM_NEWROUTE, flags, _default_route(gateway), "RTM_NEWROUTE", f"default via {gateway}")


def delete_default_route(gateway: Ip) -> Request:
    """Takes that default route away, if it is there."""
    return Request(_RTM_DELROUTE, 0, _default_route(gateway), "RTM_DELROUTE", f"default via {gateway}", (errno.ESRCH,))


def parse_link(reply: Reply) -> Link:
    _family, _type, index, flags, _change = _IFINFOMSG.unpack_from(reply.body)
    attributes = parse_attributes(reply.body, _IFINFOMSG.size)
    info = parse_attributes(attributes.get(_IFLA_LINKINFO, b""))
    return Link(
        ifindex=index,
        name=parse_text(attributes.get(_IFLA_IFNAME, b"")),
        kind=parse_text(info.get(_IFLA_INFO_KIND, b"")),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=parse_u32(attributes.get(_IFLA_MTU, bytes(4))),
        is_up=bool(flags & IFF_UP),
        master=parse_u32(attributes.get(_IFLA_MASTER, bytes(4))),
        alias=parse_text(attributes.get(_IFLA_IFALIAS, b"")),
    )


class RouteSocket(NetlinkSocket):
    """An rtnetlink socket with the questions that the network room asks."""

    def __init__(self, fd: int | None = None) -> None:
        super().__init__(NETLINK_ROUTE, fd)

    def link(self, name: str) -> Link | None:
        try:
            return parse_link(self.execute((get_link(name),))[0][0])
        except KernelError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def links(self, master: int = 0) -> list[Link]:
        """All links, or the ports of the bridge `master`."""
        body = _ifinfo() + (u32(_IFLA_MASTER, master) if master else b"")
        found = map(parse_link, self.dump(Request(_RTM_GETLINK, 0, body, "RTM_GETLINK")))
        return [link for link in found if not master or link.master == master]

    def addresses(self, index: int = 0, family: int = socket.AF_UNSPEC) -> list[Address]:
        """All addresses, or those of the link `index`."""
        request = Request(_RTM_GETADDR, 0, _IFADDRMSG.pack(family, 0, 0, 0, 0), "RTM_GETADDR")
        found = []
        for reply in self.dump(request):
            _family, prefix, _flags, _scope, own_index = _IFADDRMSG.unpack_from(reply.body)
            attributes = parse_attributes(reply.body, _IFADDRMSG.size)
            packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if packed is not None and index in (0, own_index):
                found.append(Address(own_index, ipaddress.ip_interface((packed, prefix))))
        return found

    def routes(self, family: int = socket.AF_INET) -> list[Route]:
        """The main table's routes."""
        body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        found = []
        for reply in self.dump(Request(_RTM_GETROUTE, 0, body, "RTM_GETROUTE")):
            _family, prefix, _source, _tos, table, *_rest = _RTMSG.unpack_from(reply.body)
            attributes = parse_attributes(reply.body, _RTMSG.size)
            if _RTA_TABLE in attributes:
                table = parse_u32(attributes[_RTA_TABLE])
            if table != _RT_TABLE_MAIN:
                continue
            target, via = attributes.get(_RTA_DST), attributes.get(_RTA_GATEWAY)
            found.append(
                Route(
                    destination=ipaddress.ip_network((target, prefix), strict=False) if target else None,
                    gateway=ipaddress.ip_address(via) if via else None,
                    ifindex=parse_u32(attributes.get(_RTA_OIF, bytes(4))),
                )
            )
        return found
