"""The guard at each container's bridge port: frames pass that bear the container's own MAC and addresses, no others.

It must never judge frames of links that aren't ours: bridges have other ports, too. It has a table of its own (family
bridge), since frames between containers of one network never come to the table of rules.py.

    frame from a container's port ─ its MAC? ─ ARP: its MAC and address, or a probe ─────────┐
                                             ─ IPv4: its address ───────────────────────────┼─→ passes
                                             ─ IPv6: its address, not as a router, ─────────┘
                                               nor naming others as neighbours              anything else: dropped
"""

from __future__ import annotations

import errno
import ipaddress
import logging
from collections.abc import Iterable

from tare import faults
from tare.errors import KernelError
from tare.kernel import nftables as nft
from tare.kernel.netlink import is_missing
from tare.network.records import EndpointRecord
from tare.network.rule_listing import ListedTable, list_table

_log = logging.getLogger(__name__)

_PORTS, _MACS, _ADDRESSES, _ADDRESSES6 = "ports", "macs", "addresses", "addresses6"
_LINK = nft.Type((nft.TYPE_LINK_NAME,), 16)
SETS = (
    nft.Set(_PORTS, _LINK),
    nft.Set(_MACS, nft.Type((nft.TYPE_LINK_NAME, nft.TYPE_MAC), 24)),
    nft.Set(_ADDRESSES, nft.Type((nft.TYPE_LINK_NAME, nft.TYPE_IP_ADDRESS), 20)),
    nft.Set(_ADDRESSES6, nft.Type((nft.TYPE_LINK_NAME, nft.TYPE_IP6_ADDRESS), 32)),
)
CHAIN = nft.Chain("ports", "filter", "prerouting", -300)

_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_ICMP6 = bytes((58,))
_SOLICITS, _ADVERTISES, _ROUTER, _REDIRECTS, _LISTENS = 135, 136, 134, 137, 143  # ICMPv6 types (RFC 4861, RFC 9777)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


class PortGuard:
    """One engine's guard of ports, kept in step with its endpoints."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.is_there = True
        self._socket = nft.NftablesSocket()

    def admit(self, record: EndpointRecord) -> None:
        """Lets the frames of an endpoint pass; before its link is up."""
        if not self.is_there:
            return
        transaction = nft.Transaction(self.table, nft.NFPROTO_BRIDGE)
        _add(transaction, [record])
        self._socket.commit(transaction)

    def dismiss(self, record: EndpointRecord) -> None:
        """Takes back what `admit` said; nothing to do is fine."""
        if not self.is_there or not record.guarded:
            return
        transaction = nft.Transaction(self.table, nft.NFPROTO_BRIDGE)
        for name, elements in _elements([record]).items():
            transaction.delete_elements(name, elements)
        try:
            self._socket.commit(transaction)
        except KernelError as error:
            if not is_missing(error):
                raise

    def rebuild(self, records: Iterable[EndpointRecord]) -> None:
        """The whole table in one transaction. Where the kernel has no such tables it says so once, and goes without."""
        if not self.is_there:
            return
        try:
            self._socket.commit(build_table(self.table, records))
        except KernelError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self.is_there = False
            _log.warning("this kernel has no packet filter for bridges: containers may forge addresses")
        faults.point("network.guard.built")

    def is_whole(self) -> bool:
        return not self.is_there or self._socket.rule_count(self.table, nft.NFPROTO_BRIDGE) == len(_rules())

    def listing(self) -> ListedTable:
        """The table as the kernel has it."""
        return list_table(self._socket, self.table, nft.NFPROTO_BRIDGE, SETS, self.is_whole())

    def remove(self) -> None:
        if self.is_there:
            transaction = nft.Transaction(self.table, nft.NFPROTO_BRIDGE)
            transaction.delete_table()
            self._socket.commit(transaction)

    def close(self) -> None:
        self._socket.close()


def build_table(table: str, records: Iterable[EndpointRecord]) -> nft.Transaction:
    """The table for these endpoints, in one transaction that replaces what was there."""
    transaction = nft.Transaction(table, nft.NFPROTO_BRIDGE)
    transaction.replace_table()
    transaction.add_chain(CHAIN)
    for number, item in enumerate(SETS):
        transaction.add_set(item, number + 1)
    for rule in _rules():
        transaction.add_rule(rule)
    _add(transaction, records)
    return transaction


def link_local_of(mac: str) -> ipaddress.IPv6Address:
    """The address that the kernel makes of a MAC by itself (RFC 4291, appendix A)."""
    packed = bytearray.fromhex(mac.replace(":", ""))
    packed[0] ^= 2
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(packed[:3]) + b"\xff\xfe" + bytes(packed[3:]))


def addresses_of(record: EndpointRecord) -> list[str]:
    """Every address that an endpoint may send from; none, where it has none."""
    own = [text for text in (record.ip, record.ip6, *record.link_locals) if text]
    return own + ([str(link_local_of(record.mac))] if record.ip6 else [])


def _add(transaction: nft.Transaction, records: Iterable[EndpointRecord]) -> None:
    for name, elements in _elements(records).items():
        transaction.add_elements(name, elements)


def _elements(records: Iterable[EndpointRecord]) -> dict[str, list[nft.Element]]:
    found: dict[str, list[nft.Element]] = {}
    for record in records:
        if not record.link or not record.guarded:
            continue
        link = nft.link_name(record.link)
        mac = bytes.fromhex(record.mac.replace(":", ""))
        found.setdefault(_PORTS, []).append(nft.Element(link))
        found.setdefault(_MACS, []).append(nft.Element(link + mac + bytes(2)))
        for text in dict.fromkeys((record.ip, *record.link_locals)):
            if text:
                found.setdefault(_ADDRESSES, []).append(nft.Element(link + ipaddress.IPv4Address(text).packed))
        if record.ip6:
            for address in (ipaddress.IPv6Address(record.ip6), link_local_of(record.mac)):
                found.setdefault(_ADDRESSES6, []).append(nft.Element(link + address.packed))
    return found


def _rules() -> list[nft.Rule]:
    port = nft.load_meta(nft.META_IIFNAME, 1)
    arp, ipv4, ipv6 = (
        (nft.load_meta(nft.META_PROTOCOL), nft.equal(protocol), port) for protocol in (_ARP, _IPV4, _IPV6)
    )
    counted = (nft.counter(), nft.drop())

    def rule(comment: str, *expressions: bytes) -> nft.Rule:
        return nft.Rule(CHAIN.name, expressions, comment)

    return [
        rule("links that are no container's", port, nft.not_in_set(_PORTS), nft.accept()),
        rule("another's MAC", port, nft.load_link_header(6, 6, 2), nft.not_in_set(_MACS), *counted),
        rule("ARP for another's MAC", *arp, nft.load_network_header(8, 6, 2), nft.not_in_set(_MACS), *counted),
        rule("ARP for its address", *arp, nft.load_network_header(14, 4, 2), nft.in_set(_ADDRESSES), nft.accept()),
        rule("ARP that only asks", *arp, nft.load_network_header(14, 4), nft.equal(bytes(4)), nft.accept()),
        rule("IPv4 from its address", *ipv4, nft.load_network_header(12, 4, 2), nft.in_set(_ADDRESSES), nft.accept()),
        rule("router advertisements", *ipv6, *_icmp6(_ROUTER), *counted),
        rule("redirects", *ipv6, *_icmp6(_REDIRECTS), *counted),
        rule(
            "another as neighbour",
            *ipv6,
            *_icmp6(_ADVERTISES),
            port,
            nft.load_transport_header(8, 16, 2),
            nft.not_in_set(_ADDRESSES6),
            *counted,
        ),
        rule("IPv6 from its address", *ipv6, nft.load_network_header(8, 16, 2), nft.in_set(_ADDRESSES6), nft.accept()),
        *(
            rule(what, *ipv6, nft.load_network_header(8, 16), nft.equal(bytes(16)), *_icmp6(kind), nft.accept())
            for kind, what in ((_SOLICITS, "who has this address?"), (_LISTENS, "multicast groups"))
        ),
        rule("another's address", *counted),
    ]


def _icmp6(kind: int) -> tuple[bytes, ...]:
    return (
        nft.load_meta(nft.META_L4PROTO),
        nft.equal(_ICMP6),
        nft.load_transport_header(0, 1),
        nft.equal(bytes((kind,))),
    )
