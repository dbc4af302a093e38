"""Traffic control through rtnetlink: a token bucket at a link's way out, and packets turned into another link.

man 8 tc-tbf, tc-mirred, tc-u32. It must never decide rates.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from tare.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Reply,
    Request,
    attribute,
    nested,
    parse_attributes,
    parse_text,
    text,
    u32,
)
from tare.kernel.netlink_route import RouteSocket

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_TCA_KIND, _TCA_OPTIONS, _TCA_STATS2 = 1, 2, 7
_TCA_STATS_BASIC, _TCA_STATS_QUEUE = 1, 3
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_TC_H_ROOT, _TC_H_INGRESS, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFF0000
_RTM_NEWTFILTER = 44
_ETH_P_ALL, _FIRST_PRIORITY = 3, 1
_TCA_U32_SEL, _TCA_U32_ACT, _U32_TERMINAL = 5, 7, 1
_TCA_ACT_KIND, _TCA_ACT_OPTIONS, _TCA_MIRRED_PARMS = 1, 2, 2
_ACT_STOLEN, _EGRESS_REDIRECT = 4, 1
_LINKLAYER_ETHERNET = 1
_QUEUED_S = 0.05  # how long what waits may wait before more is dropped
_TCMSG = struct.Struct("=BxxxiIII")
_RATESPEC = struct.Struct("=BBHhHI")


class Queue(NamedTuple):
    """A link's root queue. overlimits: how often something had to wait for tokens."""

    kind: str
    sent_bytes: int
    drops: int
    overlimits: int


def limit_rate(index: int, rate: int, burst: int) -> Request:
    """Lets a link send `rate` bytes a second on average, and `burst` bytes (at least an MTU) at once."""
    spec = _RATESPEC.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, min(rate, 0xFFFFFFFF))
    queued = min(int(rate * _QUEUED_S) + burst, 0xFFFFFFFF)
    options = nested(
        _TCA_OPTIONS,
        attribute(_TBF_PARMS, spec + bytes(_RATESPEC.size) + struct.pack("=III", queued, 0, 0)),
        *((attribute(_TBF_RATE64, struct.pack("=Q", rate)),) if rate > 0xFFFFFFFF else ()),
        u32(_TBF_BURST, burst),
    )
    body = _head(index) + text(_TCA_KIND, "tbf") + options
    return Request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, "RTM_NEWQDISC", f"#{index}")


def unlimit_rate(index: int) -> Request:
    """Takes the root queue away; the kernel's own comes back."""
    tolerate = (errno.ENOENT, errno.EINVAL)
    return Request(_RTM_DELQDISC, 0, _head(index), "RTM_DELQDISC", f"#{index}", tolerate)


def new_ingress(index: int) -> Request:
    """Lets filters see what comes in from a link."""
    body = _TCMSG.pack(socket.AF_UNSPEC, index, _INGRESS, _TC_H_INGRESS, 0) + text(_TCA_KIND, "ingress")
    return Request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWQDISC", f"#{index} ingress")


def delete_ingress(index: int) -> Request:
    """Takes that away, and its filters."""
    body = _TCMSG.pack(socket.AF_UNSPEC, index, _INGRESS, _TC_H_INGRESS, 0)
    tolerate = (errno.ENOENT, errno.EINVAL)
    return Request(_RTM_DELQDISC, 0, body, "RTM_DELQDISC", f"#{index} ingress", tolerate)


def redirect_ingress(index: int, target: int) -> Request:
    """Turns all that comes in from a link into the link `target`, of the kind ifb, which gives it back."""
    match_all = struct.pack("=BBBxHHhhI", _U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + bytes(16)
    mirred = struct.pack("=IIiiiiI", 0, 0, _ACT_STOLEN, 0, 0, _EGRESS_REDIRECT, target)
    action = nested(1, text(_TCA_ACT_KIND, "mirred"), nested(_TCA_ACT_OPTIONS, attribute(_TCA_MIRRED_PARMS, mirred)))
    info = _FIRST_PRIORITY << 16 | socket.htons(_ETH_P_ALL)
    body = _TCMSG.pack(socket.AF_UNSPEC, index, 0, _INGRESS, info) + text(_TCA_KIND, "u32")
    body += nested(_TCA_OPTIONS, attribute(_TCA_U32_SEL, match_all), nested(_TCA_U32_ACT, action))
    return Request(_RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWTFILTER", f"#{index}")


def root_queue(sock: RouteSocket, index: int) -> Queue:
    """A link's root queue and its counters."""
    replies = sock.dump(Request(_RTM_GETQDISC, 0, _head(0), "RTM_GETQDISC", f"#{index}"))
    for reply in replies:
        _family, own, _handle, parent, _info = _TCMSG.unpack_from(reply.body)
        if own == index and parent == _TC_H_ROOT:
            return _parse(reply)
    return Queue("", 0, 0, 0)


def _parse(reply: Reply) -> Queue:
    parts = parse_attributes(reply.body, _TCMSG.size)
    counters = parse_attributes(parts.get(_TCA_STATS2, b""))
    sent = struct.unpack_from("=Q", counters.get(_TCA_STATS_BASIC, bytes(8)))[0]
    _length, _backlog, drops, _requeues, overlimits = struct.unpack_from(
        "=IIIII", counters.get(_TCA_STATS_QUEUE, bytes(20))
    )
    return Queue(parse_text(parts.get(_TCA_KIND, b"")), sent, drops, overlimits)


def _head(index: int) -> bytes:
    return _TCMSG.pack(socket.AF_UNSPEC, index, 0, _TC_H_ROOT, 0)
