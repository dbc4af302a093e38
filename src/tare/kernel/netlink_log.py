"""nflog: packets that a rule of the packet filter copies to a group, heard by whoever bound it (nfnetlink_log).

It must never be needed for the rules to work: what nobody hears is lost, and nothing else.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import NamedTuple

from tare.errors import KernelError
from tare.kernel.netlink import NETLINK_NETFILTER, NetlinkSocket, Request, attribute, parse_attributes

_SUBSYSTEM = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIG = 0, 1
_CFG_CMD, _CFG_MODE, _BIND, _COPY_PACKET = 1, 2, 1, 2
_PAYLOAD = 9
_NFGENMSG = struct.Struct(">BBH")
_COPY_BYTES = 64
_WITH_PORTS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_SCTP: "sctp"}


class LoggedPacket(NamedTuple):
    """What a logged packet says of itself. port: the destination's, 0 if the protocol has none."""

    source: str
    destination: str
    protocol: str
    port: int


class PacketLog(NetlinkSocket):
    """A non-blocking socket that hears one group of the caller's network namespace."""

    def __init__(self, group: int) -> None:
        """Raises KernelError, EBUSY if somebody else hears the group."""
        super().__init__(NETLINK_NETFILTER)
        self.group = group
        head = _NFGENMSG.pack(socket.AF_UNSPEC, 0, group)
        try:
            for content in (
                attribute(_CFG_CMD, bytes((_BIND,))),
                attribute(_CFG_MODE, struct.pack(">IBx", _COPY_BYTES, _COPY_PACKET)),
            ):
                self.execute((Request(_SUBSYSTEM | _CONFIG, 0, head + content, "NFULNL_MSG_CONFIG", str(group)),))
        except BaseException:
            self.close()
            raise
        self._socket.setblocking(False)

    def read_nowait(self) -> list[LoggedPacket]:
        """All packets that have come."""
        found: list[LoggedPacket] = []
        while True:
            try:
                messages = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except KernelError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # more came than the buffer holds
            for kind, _, _, body in messages:
                if kind == _SUBSYSTEM | _PACKET:
                    packet = _parse(parse_attributes(body, _NFGENMSG.size).get(_PAYLOAD, b""))
                    if packet is not None:
                        found.append(packet)


def _parse(data: bytes) -> LoggedPacket | None:
    """Reads an IP header (RFC 791, RFC 8200); None for what is too short. IPv6 options hide a port."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        number, ends, start = data[9], (data[12:16], data[16:20]), (data[0] & 15) * 4
    elif len(data) >= 40 and data[0] >> 4 == 6:
        number, ends, start = data[6], (data[8:24], data[24:40]), 40
    else:
        return None
    source, destination = (str(ipaddress.ip_address(end)) for end in ends)
    protocol = _WITH_PORTS.get(number) or {1: "icmp", 58: "icmp6"}.get(number, str(number))
    port = int.from_bytes(data[start + 2 : start + 4], "big") if number in _WITH_PORTS else 0
    return LoggedPacket(source, destination, protocol, port)
