"""The packet filter's part for egress policies: who is bound, what each may send to, who hears of what is rejected.

It must never judge what a container sends to others of its own network, or answers: networks say who is beside whom.

    from a bridge, not to it again, its source bound by a policy ──▶ chain egress: an answer → back
                                                                      subnet or name allowed → back
                                                                      else told (some a second), rejected
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec

from tare.kernel import nftables as nft
from tare.network.egress import Subnet

JUMP_TO = "egress"
INPUT = nft.Chain("input", "filter", "input", 0)

_TCP, _UDP = 6, 17
_TOLD_PER_SECOND, _TOLD_AT_ONCE, _TOLD_BYTES = 10, 20, 64
_REPLY = bytes((1,))
_ICMP6 = bytes((58,))
_ON_THE_LINK = (
    133,
    135,
    136,
    143,
)  # routers, neighbours, multicast groups (RFC 4861, RFC 9777): what keeps a link going
_HEADS = {4: (12, 4), 6: (8, 16)}  # the source's offset in the header; an address's length
_TYPES = {4: nft.TYPE_IP_ADDRESS, 6: nft.TYPE_IP6_ADDRESS}
_FAMILIES = {4: bytes((nft.NFPROTO_IPV4,)), 6: bytes((nft.NFPROTO_IPV6,))}
_SUFFIXES = {4: "", 6: "6"}


class BoundSource(msgspec.Struct, frozen=True):
    """An address of a container with a policy, and the subnets it may send to, each at a port (0: at all)."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    subnets: tuple[tuple[Subnet, int], ...]


def _sets(version: int) -> dict[str, nft.Set]:
    kind, length = _TYPES[version], _HEADS[version][1]
    pair = nft.Type((kind, kind), 2 * length)
    with_port = nft.Type((kind, nft.TYPE_PROTOCOL, nft.TYPE_PORT, kind), 2 * length + 8)
    suffix = _SUFFIXES[version]
    return {
        "bound": nft.Set("egress_bound" + suffix, nft.Type((kind,), length)),
        "any": nft.Set("egress_any" + suffix, pair, ranges=True),
        "port": nft.Set("egress_port" + suffix, with_port, ranges=True),
        "named": nft.Set("egress_named" + suffix, pair, times_out=True),
        "named_port": nft.Set("egress_named_port" + suffix, with_port, times_out=True),
    }


_BY_VERSION = {version: _sets(version) for version in (4, 6)}
SETS = tuple(item for sets in _BY_VERSION.values() for item in sets.values())
NAMED = tuple(sets[name] for sets in _BY_VERSION.values() for name in ("named", "named_port"))


def guard_rules(chain: str, bridges: str, may_talk: str) -> list[nft.Rule]:
    """Where a packet that comes from a bridge is led to the chain. may_talk: pairs of links that it doesn't concern."""
    pair: tuple[bytes, ...] = (nft.load_meta(nft.META_IIFNAME), nft.in_set(bridges))
    rules = []
    if not may_talk:  # to the host itself, which goes on with none of it: a router would forward it like anything else
        for kind in _ON_THE_LINK:
            asks = (nft.load_meta(nft.META_L4PROTO), nft.equal(_ICMP6), nft.load_transport_header(0, 1))
            what = (*pair, *asks, nft.equal(bytes((kind,))), nft.accept())
            rules.append(nft.Rule(chain, what, "what keeps the link going"))
    else:
        pair += (nft.load_meta(nft.META_IIFNAME, 1), nft.load_meta(nft.META_OIFNAME, 2), nft.not_in_set(may_talk))
    return rules + [
        nft.Rule(
            chain,
            (
                *pair,
                nft.load_meta(nft.META_NFPROTO),
                nft.equal(_FAMILIES[version]),
                nft.load_network_header(*_HEADS[version]),
                nft.in_set(_BY_VERSION[version]["bound"].name),
                nft.jump(JUMP_TO),
            ),
            f"bound by an egress policy, IPv{version}",
        )
        for version in (4, 6)
    ]


def chain_rules(group: int) -> list[nft.Rule]:
    """The chain itself. group: the nflog group that hears of what is rejected."""
    rules = [_rule("answers", nft.load_conntrack(nft.CT_DIRECTION), nft.equal(_REPLY), nft.back())]
    for version, sets in _BY_VERSION.items():
        source, length = _HEADS[version]
        is_one = (nft.load_meta(nft.META_NFPROTO), nft.equal(_FAMILIES[version]))
        words = length // 4
        # As the container named it: what is published on the host is allowed by the host's address.
        aim = nft.CT_ADDRESS if version == 4 else nft.CT_ADDRESS6
        ends = (
            nft.load_network_header(source, length, _R0),
            nft.load_first_destination(aim, _R0 + words),
        )
        with_port = (
            nft.load_network_header(source, length, _R0),
            nft.load_meta(nft.META_L4PROTO, _R0 + words),
            nft.load_first_destination(nft.CT_PORT, _R0 + words + 1),
            nft.load_first_destination(aim, _R0 + words + 2),
        )
        for name, key, what in (
            ("any", ends, "an allowed subnet"),
            ("port", with_port, "an allowed subnet's port"),
            ("named", ends, "an allowed name"),
            ("named_port", with_port, "an allowed name's port"),
        ):
            rules.append(_rule(f"{what}, IPv{version}", *is_one, *key, nft.in_set(sets[name].name, _R0), nft.back()))
    rules.append(_rule("told", nft.limit(_TOLD_PER_SECOND, _TOLD_AT_ONCE), nft.log_to(group, _TOLD_BYTES)))
    rules.append(_rule("not allowed", nft.counter(), nft.reject()))
    return rules


_R0 = 8  # the first 4-byte register


def _rule(comment: str, *expressions: bytes) -> nft.Rule:
    return nft.Rule(JUMP_TO, expressions, comment)


def add_sources(transaction: nft.Transaction, sources: Iterable[BoundSource]) -> None:
    """Elements for the containers that are bound."""
    found: dict[str, list[nft.Element]] = {}
    for source in sources:
        sets = _BY_VERSION[source.address.version]
        own = source.address.packed
        found.setdefault(sets["bound"].name, []).append(nft.Element(own))
        for port, subnets in _by_port(source).items():
            for first, last in subnets:
                if not port:
                    found.setdefault(sets["any"].name, []).append(nft.Element(own + first, last=own + last))
                    continue
                for key in _ports(port):
                    element = nft.Element(own + key + first, last=own + key + last)
                    found.setdefault(sets["port"].name, []).append(element)
    for name, elements in found.items():
        transaction.add_elements(name, elements)


def add_named(transaction: nft.Transaction, own: str, address: str, ports: Iterable[int], timeout_ms: int) -> None:
    """Lets a bound source send for a while to an address that it found under an allowed name."""
    source, found = ipaddress.ip_address(own), ipaddress.ip_address(address)
    if source.version != found.version:
        return
    sets = _BY_VERSION[source.version]
    for port in sorted(ports):
        if port:
            keys = [source.packed + key + found.packed for key in _ports(port)]
        else:
            keys = [source.packed + found.packed]
        name = sets["named_port" if port else "named"].name
        elements = [nft.Element(key, timeout_ms=timeout_ms) for key in keys]
        # Added first, since what isn't there can't be deleted, and what is there keeps its old time.
        transaction.add_elements(name, elements)
        transaction.delete_elements(name, elements)
        transaction.add_elements(name, elements)


def _by_port(source: BoundSource) -> dict[int, list[tuple[bytes, bytes]]]:
    """First and last addresses by port; none overlaps another, as the kernel wants it."""
    by_port: dict[int, list[Subnet]] = {}
    for subnet, port in source.subnets:
        if subnet.version == source.address.version:
            by_port.setdefault(port, []).append(subnet)
    return {
        port: [
            (subnet.network_address.packed, subnet.broadcast_address.packed)
            for subnet in ipaddress.collapse_addresses(subnets)  # type: ignore[type-var]
        ]
        for port, subnets in by_port.items()
    }


def _ports(port: int) -> list[bytes]:
    packed = port.to_bytes(2, "big") + b"\0\0"
    return [bytes((protocol, 0, 0, 0)) + packed for protocol in (_TCP, _UDP)]
