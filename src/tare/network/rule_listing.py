"""An engine's packet filter as the kernel has it, in words: chains, rules with what they are for, elements.

It must never say what should be there: it reads the kernel, so that a listing shows what somebody changed.
"""

from __future__ import annotations

import ipaddress

import msgspec

from tare.kernel import nftables as nft
from tare.values.ports import PROTOCOL_NUMBERS

_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_FAMILIES = {nft.NFPROTO_INET: "inet", nft.NFPROTO_BRIDGE: "bridge"}
_PROTOCOLS = {number: name for name, number in PROTOCOL_NUMBERS.items()}


class ListedChain(msgspec.Struct, frozen=True):
    """A chain; rules: what each is for, and how many packets it has met (None: it doesn't count)."""

    name: str
    hook: str
    priority: int
    rules: tuple[tuple[str, int | None], ...]


class ListedSet(msgspec.Struct, frozen=True):
    """A set or map, each element as text."""

    name: str
    elements: tuple[str, ...]


class ListedTable(msgspec.Struct, frozen=True):
    """One table. whole: whether it holds the rules that it should."""

    family: str
    name: str
    whole: bool
    chains: tuple[ListedChain, ...]
    sets: tuple[ListedSet, ...]


def list_table(sock: nft.NftablesSocket, name: str, family: int, sets: tuple[nft.Set, ...], whole: bool) -> ListedTable:
    """Reads one table; one that isn't there has no chains and no elements."""
    rules = sock.rules(name, family)
    chains = tuple(
        ListedChain(
            chain.name,
            _HOOKS[chain.hook],
            chain.priority,
            tuple((rule.comment, rule.packets) for rule in rules if rule.chain == chain.name),
        )
        for chain in sock.base_chains()
        if chain.table == name and chain.family == family
    )
    listed = tuple(
        ListedSet(item.name, _texts(item, sock.elements(name, item.name, family))) for item in sets if chains
    )
    return ListedTable(_FAMILIES[family], name, whole, chains, listed)


def _texts(item: nft.Set, elements: list[nft.Element]) -> tuple[str, ...]:
    if item.ranges and len(item.key.parts) == 1:
        return _spans(elements)
    found = []
    for element in elements:
        text = _key(item.key, element.key, element.last)
        found.append(f"{text} → {_key(item.data, element.data)}" if item.data else text)
    return tuple(sorted(found))


def _spans(elements: list[nft.Element]) -> tuple[str, ...]:
    """The kernel lists where ranges begin and what comes first behind them, last things first."""
    found = []
    begin = 0
    for key, closes in sorted((int.from_bytes(element.key, "big"), element.closes) for element in elements):
        if closes:
            found += _subnets(begin, key - 1)
        begin = key
    if elements and not max(elements, key=lambda element: element.key).closes:
        found += _subnets(begin, (1 << 8 * len(elements[0].key)) - 1)
    return tuple(found)


def _subnets(first: int, last: int) -> list[str]:
    ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
    return [str(subnet) for subnet in ipaddress.summarize_address_range(*ends)]


def _key(kind: nft.Type, key: bytes, last: bytes = b"") -> str:
    parts = []
    offset = 0
    for part in kind.parts:
        length = nft.TYPE_LENGTHS[part]
        first = _part(part, key[offset : offset + length])
        end = _part(part, last[offset : offset + length]) if last else first
        parts.append(first if end == first else f"{first}-{end}")
        offset += (length + 3) & ~3
    return " . ".join(parts)


def _part(kind: int, value: bytes) -> str:
    if kind == nft.TYPE_LINK_NAME:
        return value.rstrip(b"\0").decode(errors="replace")
    if kind in (nft.TYPE_IP_ADDRESS, nft.TYPE_IP6_ADDRESS):
        return str(ipaddress.ip_address(value))
    if kind == nft.TYPE_MAC:
        return value.hex(":")
    number = int.from_bytes(value, "big")
    return _PROTOCOLS.get(number, str(number)) if kind == nft.TYPE_PROTOCOL else str(number)
