"""Connection tracking through nfnetlink: finding and forgetting connections. It must never flush the whole table."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from tare.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    Request,
    attribute,
    be32,
    nested,
    parse_attributes,
)

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = 1, 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_FILTER, _CTA_ID = 1, 2, 25, 12
_CTA_TUPLE_IP, _CTA_IP_V4_SRC = 1, 1
_CTA_FILTER_REPLY_FLAGS = 2
_FILTER_IP_SRC = 1 << 0
_NFGENMSG = struct.Struct(">BBH")


class ConntrackSocket(NetlinkSocket):
    """A connection tracking socket of the caller's network namespace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def forget_replies_from(self, address: str) -> int:
        """Deletes the connections that `address` answers (those translated to it, too); returns how many there were."""
        wanted = ipaddress.IPv4Address(address).packed
        head = _NFGENMSG.pack(socket.AF_INET, 0, 0)
        source = nested(_CTA_TUPLE_REPLY, nested(_CTA_TUPLE_IP, attribute(_CTA_IP_V4_SRC, wanted)))
        flags = nested(_CTA_FILTER, be32(1, 0), be32(_CTA_FILTER_REPLY_FLAGS, _FILTER_IP_SRC))
        found = self.dump(Request(_SUBSYSTEM | _GET, 0, head + source + flags, "IPCTNL_MSG_CT_GET", address))
        deletions = []
        for reply in found:
            parts = parse_attributes(reply.body, _NFGENMSG.size)
            answers = parse_attributes(parse_attributes(parts.get(_CTA_TUPLE_REPLY, b"")).get(_CTA_TUPLE_IP, b""))
            if answers.get(_CTA_IP_V4_SRC) != wanted:
                continue  # the filter is the kernel's from 5.8 on; before, it lists everything
            body = head + nested(_CTA_TUPLE_ORIG, parts[_CTA_TUPLE_ORIG]) + attribute(_CTA_ID, parts[_CTA_ID])
            deletions.append(Request(_SUBSYSTEM | _DELETE, 0, body, "IPCTNL_MSG_CT_DELETE", address, (errno.ENOENT,)))
        for deletion in deletions:
            self.execute((deletion,))
        return len(deletions)
