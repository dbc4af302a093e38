"""Connection tracking through nfnetlink: finding and forgetting connections. It must never flush the whole table."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from tare.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    Request,
    attribute,
    nested,
    parse_attributes,
    u8,
    u32,
)

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = 1, 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_FILTER, _CTA_ID = 1, 2, 25, 12
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V6_SRC = 3
_CTA_IP_V4_SRC, _CTA_IP_V4_DST, _CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 2, 1, 3
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
# Which parts of a tuple the filter compares: not in the headers; net/netfilter/nf_conntrack_netlink.c numbers them.
_IP_SRC, _PROTO_NUM, _PROTO_DST_PORT = 1 << 0, 1 << 3, 1 << 5
_NFGENMSG = struct.Struct(">BBH")


class Flow(NamedTuple):
    """Where a tracked flow was sent, and who answers it: another, if its destination was translated."""

    destination: ipaddress.IPv4Address
    answers: ipaddress.IPv4Address


class ConntrackSocket(NetlinkSocket):
    """A connection tracking socket of the caller's network namespace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def forget_replies_from(self, address: str) -> int:
        """Deletes the connections that `address` answers (those translated to it, too); returns how many there were."""
        parsed = ipaddress.ip_address(address)
        wanted = parsed.packed
        kind = _CTA_IP_V4_SRC if parsed.version == 4 else _CTA_IP_V6_SRC
        source = nested(_CTA_TUPLE_REPLY, nested(_CTA_TUPLE_IP, attribute(kind, wanted)))
        flags = nested(_CTA_FILTER, u32(_CTA_FILTER_ORIG_FLAGS, 0), u32(_CTA_FILTER_REPLY_FLAGS, _IP_SRC))
        family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
        return self._forget(source + flags, address, lambda parts: _reply_source(parts) == wanted, family)

    def forget_datagrams_to(self, port: int, is_wrong: Callable[[Flow], bool]) -> int:
        """Deletes the UDP flows sent to `port` that are wrong; returns how many there were.

        The caller judges each one: most flows to a port number are somebody else's, or right.
        """
        wanted = port.to_bytes(2, "big")
        protocol = u8(_CTA_PROTO_NUM, socket.IPPROTO_UDP) + attribute(_CTA_PROTO_DST_PORT, wanted)
        target = nested(_CTA_TUPLE_ORIG, nested(_CTA_TUPLE_PROTO, protocol))
        flags = nested(
            _CTA_FILTER,
            u32(_CTA_FILTER_ORIG_FLAGS, _PROTO_NUM | _PROTO_DST_PORT),
            u32(_CTA_FILTER_REPLY_FLAGS, 0),
        )
        return self._forget(
            target + flags, f"udp port {port}", lambda parts: _is_datagram_to(parts, wanted) and is_wrong(_flow(parts))
        )

    def _forget(
        self,
        wanted: bytes,
        about: str,
        matches: Callable[[dict[int, bytes]], bool],
        family: socket.AddressFamily = socket.AF_INET,
    ) -> int:
        """The kernel filters from 5.8 on; before, it lists everything: so each answer is looked at."""
        head = _NFGENMSG.pack(family, 0, 0)
        found = self.dump(Request(_SUBSYSTEM | _GET, 0, head + wanted, "IPCTNL_MSG_CT_GET", about))
        count = 0
        for reply in found:
            parts = parse_attributes(reply.body, _NFGENMSG.size)
            if matches(parts):
                body = head + nested(_CTA_TUPLE_ORIG, parts[_CTA_TUPLE_ORIG]) + attribute(_CTA_ID, parts[_CTA_ID])
                deletion = Request(_SUBSYSTEM | _DELETE, 0, body, "IPCTNL_MSG_CT_DELETE", about, (errno.ENOENT,))
                self.execute((deletion,))
                count += 1
        return count


def _flow(parts: dict[int, bytes]) -> Flow:
    asked = parse_attributes(parse_attributes(parts.get(_CTA_TUPLE_ORIG, b"")).get(_CTA_TUPLE_IP, b""))
    return Flow(_address(asked.get(_CTA_IP_V4_DST, b"")), _address(_reply_source(parts)))


def _address(packed: bytes) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(packed or bytes(4))


def _reply_source(parts: dict[int, bytes]) -> bytes:
    answer = parse_attributes(parts.get(_CTA_TUPLE_REPLY, b""))
    ends = parse_attributes(answer.get(_CTA_TUPLE_IP, b""))
    return ends.get(_CTA_IP_V4_SRC) or ends.get(_CTA_IP_V6_SRC, b"")


def _is_datagram_to(parts: dict[int, bytes], port: bytes) -> bool:
    asked = parse_attributes(parts.get(_CTA_TUPLE_ORIG, b""))
    protocol = parse_attributes(asked.get(_CTA_TUPLE_PROTO, b""))
    is_udp = protocol.get(_CTA_PROTO_NUM) == bytes((socket.IPPROTO_UDP,))
    return is_udp and protocol.get(_CTA_PROTO_DST_PORT) == port
