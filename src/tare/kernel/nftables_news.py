"""Hears of every change to the packet filter. It must never change anything itself."""

from __future__ import annotations

import errno
import socket

from tare.errors import KernelError
from tare.kernel.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    SOL_NETLINK,
    NetlinkSocket,
    parse_attributes,
    parse_text,
)
from tare.kernel.nftables import NFGENMSG

_GROUP_NFTABLES = 7


class NftablesNews(NetlinkSocket):
    """A non-blocking socket that hears of every change to the packet filter of the caller's namespace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._socket.setblocking(False)

    def read_nowait(self, table: str) -> bool:
        """Reads all that has come; whether some of it may be about `table`."""
        concerned = False
        while True:
            try:
                messages = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return concerned
            except KernelError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                concerned = True  # more came than the buffer holds: anything may have changed
                continue
            concerned = concerned or any(
                parse_text(parse_attributes(body, NFGENMSG.size).get(1, b"")) == table for *_, body in messages
            )
