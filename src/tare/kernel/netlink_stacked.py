"""rtnetlink: links that stand on another link (macvlan, ipvlan, VLANs) and namespaces' ids (man 8 ip-link, ip-netns).

Like netlink_route.py it sends nothing by itself, and must never decide names or modes.
"""

from __future__ import annotations

import errno
import struct

from tare.errors import KernelError
from tare.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Request,
    attribute,
    nested,
    parse_attributes,
    text,
    u32,
)
from tare.kernel.netlink_route import Link, RouteSocket, parse_link

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_IFLA_NET_NS_FD, _IFLA_TARGET_NETNSID = 28, 46
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_MACVLAN_MODE, _IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS, _IFLA_VLAN_ID = 1, 1, 2, 1
_NETNSA_NSID, _NETNSA_FD = 1, 3
_IFINFOMSG = struct.Struct("=BxHiII")
_RTGENMSG = bytes(4)  # rtgen_family, padded

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


def _u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def new_macvlan(name: str, parent: int, mode: str, mac: str, mtu: int, namespace_fd: int) -> Request:
    """Creates a link with a MAC of its own on `parent`, right inside another namespace. mtu 0: the parent's."""
    own = attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    data = u32(_IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])
    return _stacked("macvlan", name, parent, data, own, mtu, namespace_fd)


def new_ipvlan(name: str, parent: int, mode: str, flag: str, mtu: int, namespace_fd: int) -> Request:
    """Creates a link that shares its parent's MAC, right inside another namespace. mtu 0: the parent's."""
    data = _u16(_IFLA_IPVLAN_MODE, IPVLAN_MODES[mode]) + _u16(_IFLA_IPVLAN_FLAGS, IPVLAN_FLAGS[flag])
    return _stacked("ipvlan", name, parent, data, b"", mtu, namespace_fd)


def _stacked(kind: str, name: str, parent: int, data: bytes, own: bytes, mtu: int, namespace_fd: int) -> Request:
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent) + own
    body += (u32(_IFLA_MTU, mtu) if mtu else b"") + u32(_IFLA_NET_NS_FD, namespace_fd)
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind), nested(_IFLA_INFO_DATA, data))
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWLINK", f"{kind} {name}")


def new_vlan(name: str, parent: int, number: int) -> Request:
    """Creates a link for one VLAN (1 to 4094, IEEE 802.1Q) of a parent."""
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent)
    data = nested(_IFLA_INFO_DATA, _u16(_IFLA_VLAN_ID, number))
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "vlan"), data)
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWLINK", f"vlan {name}")


def new_plain(name: str, kind: str) -> Request:
    """Creates a link that needs nothing but its kind (dummy, ifb)."""
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind))
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWLINK", f"{kind} {name}")


def has_kind(sock: RouteSocket, kind: str) -> bool:
    """Whether the kernel has a kind of link that stands on another (it may load a module to find out).

    One without its parent is refused by the kind itself, with another error than a kind that nobody knows.
    """
    body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind))
    try:
        sock.execute((Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWLINK", kind),))
    except KernelError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def namespace_id(sock: RouteSocket, namespace_fd: int) -> int:
    """The number by which the socket's namespace names another one; given to it for good, if it has none."""
    named = u32(_NETNSA_FD, namespace_fd)
    new = Request(
        _RTM_NEWNSID, 0, _RTGENMSG + attribute(_NETNSA_NSID, struct.pack("=i", -1)) + named, "RTM_NEWNSID", "",
        (errno.EEXIST,),
    )  # fmt: skip
    sock.execute((new,))
    reply = sock.execute((Request(_RTM_GETNSID, 0, _RTGENMSG + named, "RTM_GETNSID"),))[0][0]
    found = parse_attributes(reply.body, len(_RTGENMSG))[_NETNSA_NSID]
    return int(struct.unpack("=i", found)[0])


def _inside(name: str, number: int) -> bytes:
    target = attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", number))
    return _IFINFOMSG.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + target


def delete_link_inside(name: str, number: int) -> Request:
    """Deletes a link in the namespace of that id; it waits for RCU."""
    return Request(_RTM_DELLINK, 0, _inside(name, number), "RTM_DELLINK", name, (errno.ENODEV,))


def link_inside(sock: RouteSocket, name: str, number: int) -> Link | None:
    """A link in the namespace of that id."""
    try:
        return parse_link(sock.execute((Request(_RTM_GETLINK, 0, _inside(name, number), "RTM_GETLINK", name),))[0][0])
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
