"""Traffic control through rtnetlink: a token bucket or a delay at a link's way out, packets turned into another link.

man 8 tc-tbf, tc-netem, tc-mirred, tc-u32. It must never decide rates.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from tare.errors import KernelError
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
_NETEM = struct.Struct("=IIIIII")  # struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
_TICK_NS = 64  # the kernel's PSCHED_SHIFT, which /proc/net/psched tells as well
_LOOPBACK = 1  # its number in every network namespace
# Own handles for each kind of queue: one of the same kind is changed in place, with what waits in it; another is put
# in its place whole. (Without a handle the kernel would choose one, and its child could not be named.)
_BUCKET, _DELAY, _BUCKET_OF_DELAYED, _DELAYED = 0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000


class Queue(NamedTuple):
    """A link's root queue. overlimits: how often something had to wait for tokens."""

    kind: str
    sent_bytes: int
    drops: int
    overlimits: int


def limit_rate(index: int, rate: int, burst: int, *, delays: bool = False) -> Request:
    """Lets a link send `rate` bytes a second on average, and `burst` bytes (at least an MTU) at once.

    delays: a `delay` of what waits for tokens is to follow.
    """
    spec = _RATESPEC.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, min(rate, 0xFFFFFFFF))
    queued = min(int(rate * _QUEUED_S) + burst, 0xFFFFFFFF)
    options = nested(
        _TCA_OPTIONS,
        attribute(_TBF_PARMS, spec + bytes(_RATESPEC.size) + struct.pack("=III", queued, 0, 0)),
        *((attribute(_TBF_RATE64, struct.pack("=Q", rate)),) if rate > 0xFFFFFFFF else ()),
        u32(_TBF_BURST, burst),
    )
    body = _head(index, _BUCKET_OF_DELAYED if delays else _BUCKET) + text(_TCA_KIND, "tbf") + options
    return Request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, "RTM_NEWQDISC", f"#{index}")


def delay(index: int, delay_ns: int, jitter_ns: int, loss: float, packets: int, *, in_bucket: bool = False) -> Request:
    """Lets what a link sends wait so long first, give or take the jitter, and loses a share of it (0 to 1).

    At most `packets` wait at once. in_bucket: before they wait for the tokens of `limit_rate(…, delays=True)`.
    The bucket is the parent: what its own limit was is netem's then (man 8 tc-tbf), and a bucket that splits a large
    frame for its tokens has no netem above it whose count of packets it would change.
    """
    ticks, jitter = delay_ns // _TICK_NS, jitter_ns // _TICK_NS
    options = attribute(_TCA_OPTIONS, _NETEM.pack(ticks, packets, round(loss * 0xFFFFFFFF), 0, 0, jitter))
    head = _head(index, _DELAY)
    if in_bucket:
        head = _TCMSG.pack(socket.AF_UNSPEC, index, _DELAYED, _BUCKET_OF_DELAYED + 1, 0)
    body = head + text(_TCA_KIND, "netem") + options
    return Request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, "RTM_NEWQDISC", f"#{index} netem")


def has_netem(sock: RouteSocket) -> bool:
    """Whether this kernel can delay packets; a module for it is loaded if there is one.

    Nothing changes: netem without options is an error, but another one than netem that isn't there.
    """
    body = _head(_LOOPBACK) + text(_TCA_KIND, "netem")
    request = Request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, "RTM_NEWQDISC", "netem")
    try:
        sock.execute((request,))
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            return False
        if error.errno != errno.EINVAL:
            raise
    return True


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


def _head(index: int, handle: int = 0) -> bytes:
    return _TCMSG.pack(socket.AF_UNSPEC, index, handle, _TC_H_ROOT, 0)
