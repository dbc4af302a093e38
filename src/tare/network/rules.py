"""Tare's packet filter: which rules one engine's table holds, and how a published port becomes a map element.

It must never send anything itself (kernel/nftables.py does), nor touch another table: what the host's own rules drop
stays dropped, since an accept here ends only this table's chain (man 8 nft, "verdict statement").

    packet from outside ─ raw ─ dnat ───────── forward ───────────────────── snat ─→ container
                           │     │ published     │ internal network: drop       │
                           │     │               │ established, published:      │ from the host's loopback, or from the
                           │     │ address:port  │   accept                     │   container's own subnet: masquerade
                           │     │ → container   │ same bridge, if icc: accept  │
                           │                     │ else to a bridge: drop       │
    from a bridge to 127.0.0.0/8: drop      container to elsewhere ─────────────┘ masquerade
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Sequence

import msgspec

from tare.kernel import nftables as nft
from tare.network import egress_rules
from tare.network.ip_families import FAMILIES, IPV4, IPV6, R0, Family, Ip, Subnet
from tare.network.records import NAT, NAT_UNPROTECTED, ROUTED
from tare.values.ports import PROTOCOL_NUMBERS

PUBLISHED = "published"
PUBLISHED_ANY = "published_any"
_BRIDGES = "bridges"
_MAY_TALK = "may_talk"
_INTERNAL = "internal"
_GATEWAYS = "gateways"
_OWN_GATEWAYS = "own_gateways"
PUBLISH_ALLOW = "publish_allow"
ROUTED_PORTS = "routed_ports"
_ROUTED, _OPEN = "routed", "unprotected"  # bridges by their gateway mode
_TRUSTED, _DIRECT = "trusted", "direct"

_ECHO, _ECHO6 = bytes((8,)), bytes((128,))  # RFC 792, RFC 4443
_RTN_LOCAL = (2).to_bytes(4, sys.byteorder)
_DNATTED = (
    nft.load_conntrack(nft.CT_STATUS),
    nft.mask(nft.CT_DST_NAT.to_bytes(4, sys.byteorder)),
    nft.unequal(bytes(4)),
)

_LINK = nft.Type((nft.TYPE_LINK_NAME,), 16)
_LINK_PAIR = nft.Type((nft.TYPE_LINK_NAME, nft.TYPE_LINK_NAME), 32)


def _sets_of(family: Family) -> tuple[nft.Set, ...]:
    target = family.type_of(after=(nft.TYPE_PORT,))
    return (
        nft.Set(PUBLISHED + family.suffix, family.type_of(nft.TYPE_PROTOCOL, after=(nft.TYPE_PORT,)), target),
        nft.Set(PUBLISHED_ANY + family.suffix, nft.Type((nft.TYPE_PROTOCOL, nft.TYPE_PORT), 8), target),
        nft.Set(_GATEWAYS + family.suffix, family.type_of()),
        nft.Set(_OWN_GATEWAYS + family.suffix, family.type_of(nft.TYPE_LINK_NAME)),
        nft.Set(PUBLISH_ALLOW + family.suffix, family.type_of(), ranges=True),
        nft.Set(ROUTED_PORTS + family.suffix, family.type_of(nft.TYPE_PROTOCOL, after=(nft.TYPE_PORT,))),
        nft.Set(_ROUTED + family.suffix, _LINK),
        nft.Set(_OPEN + family.suffix, _LINK),
    )


SETS = (
    nft.Set(_BRIDGES, _LINK),
    nft.Set(_MAY_TALK, _LINK_PAIR),
    nft.Set(_INTERNAL, _LINK),
    nft.Set(_TRUSTED, _LINK_PAIR),
    nft.Set(_DIRECT, _LINK),
    *(item for family in FAMILIES for item in _sets_of(family)),
    *egress_rules.SETS,
)

_RAW = nft.Chain("raw", "filter", "prerouting", -300)
_DNAT = nft.Chain("dnat", "nat", "prerouting", -100)
_DNAT_HOST = nft.Chain("dnat_host", "nat", "output", -100)
_FORWARD = nft.Chain("forward", "filter", "forward", 0)
_SNAT = nft.Chain("snat", "nat", "postrouting", 100)
_CHAINS = (_RAW, _DNAT, _DNAT_HOST, _FORWARD, _SNAT)


class BridgeRules(msgspec.Struct, frozen=True):
    """What the rules need to know of one bridge network. interfaces: the bridge's addresses with their subnets.

    trusted: links from which published ports are reached at the containers' own addresses, too; direct: from all of the
    host's that aren't bridges of these.
    """

    bridge_name: str
    interfaces: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]
    icc: bool = True
    ip_masq: bool = True
    internal: bool = False
    modes: tuple[str, str] = (NAT, NAT)
    trusted: tuple[str, ...] = ()
    direct: bool = False

    def mode(self, version: int) -> str:
        """The gateway mode of an address family."""
        return self.modes[version == 6]


class Egress(msgspec.Struct, frozen=True):
    """Containers that may not send to everywhere. group: the nflog group that hears of what they tried.

    named: elements of the sets of addresses that were found under allowed names, by the sets' names.
    """

    sources: tuple[egress_rules.BoundSource, ...]
    group: int
    named: dict[str, list[nft.Element]] = {}


class PublishedPort(msgspec.Struct, frozen=True):
    """One port of the host that leads to a container's; host_port 0: the container's own, as it is."""

    protocol: str
    host_ip: Ip
    host_port: int
    container_ip: Ip
    container_port: int


def build_table(
    table: str,
    bridges: Sequence[BridgeRules],
    ports: Iterable[PublishedPort],
    allow: Sequence[Subnet] = (),
    egress: Egress | None = None,
) -> nft.Transaction:
    """The whole table, in one transaction that replaces what was there; open connections go on (conntrack's).

    allow: who may reach published ports; empty for all. egress: who may not send to everywhere; None for nobody.
    """
    transaction = nft.Transaction(table)
    transaction.replace_table()
    for chain in _CHAINS:
        transaction.add_chain(chain)
    if egress is not None:
        transaction.add_chain(egress_rules.INPUT)
        transaction.add_plain_chain(egress_rules.JUMP_TO)
    for number, item in enumerate(SETS):
        transaction.add_set(item, number + 1)
    for rule in _rules(bridges, bool(allow), egress):
        transaction.add_rule(rule)
    transaction.add_elements(_BRIDGES, [nft.Element(nft.link_name(item.bridge_name)) for item in bridges])
    transaction.add_elements(
        _MAY_TALK, [nft.Element(nft.link_name(item.bridge_name) * 2) for item in bridges if item.icc]
    )
    transaction.add_elements(
        _INTERNAL, [nft.Element(nft.link_name(item.bridge_name)) for item in bridges if item.internal]
    )
    pairs = [(link, item.bridge_name) for item in bridges for link in item.trusted]
    transaction.add_elements(
        _TRUSTED, [nft.Element(nft.link_name(link) + nft.link_name(bridge)) for link, bridge in pairs]
    )
    direct = [nft.Element(nft.link_name(item.bridge_name)) for item in bridges if item.direct]
    transaction.add_elements(_DIRECT, direct)
    for family in FAMILIES:
        gateways = [
            (nft.link_name(item.bridge_name), interface.ip.packed)
            for item in bridges
            for interface in item.interfaces
            if interface.version == family.version
        ]
        suffix = family.suffix
        for name, mode in ((_ROUTED, ROUTED), (_OPEN, NAT_UNPROTECTED)):
            own = [
                nft.Element(nft.link_name(item.bridge_name)) for item in bridges if item.mode(family.version) == mode
            ]
            transaction.add_elements(name + suffix, own)
        transaction.add_elements(_GATEWAYS + suffix, [nft.Element(address) for _, address in gateways])
        transaction.add_elements(_OWN_GATEWAYS + suffix, [nft.Element(link + address) for link, address in gateways])
        transaction.add_elements(PUBLISH_ALLOW + suffix, family.ranges(allow))
    _add_ports(transaction, ports)
    if egress is not None:
        egress_rules.add_sources(transaction, egress.sources)
        for name, elements in egress.named.items():
            transaction.add_elements(name, elements)
    return transaction


def rule_count(bridges: Sequence[BridgeRules], *, allows: bool = False, egress: Egress | None = None) -> int:
    """How many rules the table has when nobody has tampered with it."""
    return len(_rules(bridges, allows, egress))


def publish(table: str, ports: Iterable[PublishedPort]) -> nft.Transaction:
    transaction = nft.Transaction(table)
    _add_ports(transaction, ports)
    return transaction


def unpublish(table: str, ports: Iterable[PublishedPort]) -> nft.Transaction:
    transaction = nft.Transaction(table)
    by_map = _by_map(ports)
    for name, elements in by_map.items():
        transaction.delete_elements(name, elements)
    return transaction


def _add_ports(transaction: nft.Transaction, ports: Iterable[PublishedPort]) -> None:
    for name, elements in _by_map(ports).items():
        transaction.add_elements(name, elements)


def _by_map(ports: Iterable[PublishedPort]) -> dict[str, list[nft.Element]]:
    found: dict[str, list[nft.Element]] = {}
    for port in ports:
        protocol = bytes((PROTOCOL_NUMBERS[port.protocol], 0, 0, 0))
        target = port.container_ip.packed + _padded_port(port.container_port)
        suffix = IPV4.suffix if port.host_ip.version == 4 else IPV6.suffix
        if not port.host_port:
            key, name = protocol + target, ROUTED_PORTS + suffix
            found.setdefault(name, []).append(nft.Element(key))
            continue
        if port.host_ip.is_unspecified:
            key, name = protocol + _padded_port(port.host_port), PUBLISHED_ANY + suffix
        else:
            key, name = protocol + port.host_ip.packed + _padded_port(port.host_port), PUBLISHED + suffix
        found.setdefault(name, []).append(nft.Element(key, target))
    return found


def _padded_port(port: int) -> bytes:
    return port.to_bytes(2, "big") + b"\0\0"


def _rules(bridges: Sequence[BridgeRules], allows: bool, egress: Egress | None) -> list[nft.Rule]:
    rules = _raw_rules()
    for family in FAMILIES:
        rules += _dnat_rules(family)
    if egress is not None:
        rules += egress_rules.guard_rules(_FORWARD.name, _BRIDGES, _MAY_TALK)
        rules += egress_rules.guard_rules(egress_rules.INPUT.name, _BRIDGES, "")
        rules += egress_rules.chain_rules(egress.group)
    rules += _forward_rules(allows)
    rules.append(
        nft.Rule(
            _SNAT.name,
            (*IPV4.source_in(ipaddress.ip_network("127.0.0.0/8")), *_link_in(nft.META_OIFNAME), nft.masquerade()),
            "the host's loopback to a published port",
        )
    )
    for item in bridges:
        rules += _network_rules(item)
    return rules


def _raw_rules() -> list[nft.Rule]:
    """The bridges have route_localnet, so that 127.0.0.1:port works on the host; containers must not gain by it.

    CVE-2020-8558 was just that. Answers to the host's own connections aren't caught: they come to the bridge's address.
    """
    loopback = bytes((255, 0, 0, 0)), bytes((127, 0, 0, 0))
    return [
        nft.Rule(
            _RAW.name,
            (
                *_link_in(nft.META_IIFNAME),
                *IPV4.matches,
                IPV4.load(offset),
                nft.mask(loopback[0]),
                nft.equal(loopback[1]),
                nft.drop(),
            ),
            f"loopback as {what} from a container",
        )
        for offset, what in ((IPV4.destination, "destination"), (IPV4.source, "source"))
    ] + [
        nft.Rule(
            _RAW.name,
            (
                *_link_in(nft.META_IIFNAME),
                *family.matches,
                family.load(family.destination),
                nft.in_set(_GATEWAYS + family.suffix),
                nft.load_meta(nft.META_IIFNAME, 1),
                family.load(family.destination, 2),
                nft.not_in_set(_OWN_GATEWAYS + family.suffix),
                nft.counter(),
                nft.drop(),
            ),
            f"a container to another network's bridge, IPv{family.version}",
        )
        for family in FAMILIES
    ]


def _dnat_rules(family: Family) -> list[nft.Rule]:
    """From outside nothing leads to 127.0.0.0/8, wherever route_localnet may be on: only the host's own output does.

    The host's own packets to ::1 stay with the host, where relays.py takes them: the kernel would drop the answers.
    """
    not_loopback: tuple[bytes, ...] = ()
    if family is IPV4:
        not_loopback = (
            family.load(family.destination),
            nft.mask(bytes((255, 0, 0, 0))),
            nft.unequal(bytes((127, 0, 0, 0))),
        )
    not_own: tuple[bytes, ...] = ()
    if family is IPV6:
        not_own = (family.load(family.destination), nft.unequal(ipaddress.IPv6Address("::1").packed))
    local = (nft.load_destination_type(), nft.equal(_RTN_LOCAL))
    target = family.dnat(R0, R0 + family.words)
    by_address = (
        nft.load_meta(nft.META_L4PROTO, R0),
        family.load(family.destination, R0 + 1),
        nft.load_transport_header(2, 2, R0 + 1 + family.words),
        nft.map_to(PUBLISHED + family.suffix, R0, 1),
        target,
    )
    by_port = (
        nft.load_meta(nft.META_L4PROTO, R0),
        nft.load_transport_header(2, 2, R0 + 1),
        nft.map_to(PUBLISHED_ANY + family.suffix, R0, 1),
        target,
    )
    one, all_, own = "published at one address", "published at all addresses", "the host's own packets"
    version = f"IPv{family.version}"
    return [
        nft.Rule(_DNAT.name, (*family.matches, *not_loopback, *local, *by_address), f"{one}, {version}"),
        nft.Rule(_DNAT.name, (*family.matches, *not_loopback, *local, *by_port), f"{all_}, {version}"),
        nft.Rule(_DNAT_HOST.name, (*family.matches, *not_own, *local, *by_address), f"{own}, {one}, {version}"),
        nft.Rule(_DNAT_HOST.name, (*family.matches, *not_own, *local, *by_port), f"{own}, {all_}, {version}"),
    ]


def _forward_rules(allows: bool) -> list[nft.Rule]:
    to_bridge = _link_in(nft.META_OIFNAME)
    known = (nft.CT_ESTABLISHED | nft.CT_RELATED).to_bytes(4, sys.byteorder)
    zero = bytes(4)
    pair = (nft.load_meta(nft.META_IIFNAME, 1), nft.load_meta(nft.META_OIFNAME, 2))
    return [
        *(
            nft.Rule(
                _FORWARD.name,
                (*pair, nft.not_in_set(_MAY_TALK), nft.load_meta(way), nft.in_set(_INTERNAL), nft.drop()),
                f"internal networks: no way {where}",
            )
            for way, where in ((nft.META_IIFNAME, "out"), (nft.META_OIFNAME, "in"))
        ),
        nft.Rule(
            _FORWARD.name,
            (*to_bridge, nft.load_conntrack(nft.CT_STATE), nft.mask(known), nft.unequal(zero), nft.accept()),
            "answers",
        ),
        *(_not_allowed(family) for family in FAMILIES if allows),
        nft.Rule(
            _FORWARD.name,
            (*to_bridge, *_DNATTED, nft.accept()),
            "published ports",
        ),
        nft.Rule(
            _FORWARD.name,
            (*pair, nft.in_set(_MAY_TALK), nft.accept()),
            "containers of one network",
        ),
        *(rule for family in FAMILIES for rule in _direct_rules(family, allows)),
        nft.Rule(_FORWARD.name, (*to_bridge, nft.counter(), nft.drop()), "not published"),
    ]


def _direct_rules(family: Family, allows: bool) -> list[nft.Rule]:
    """Who is reached at its own address: published ports and pings of routed networks, all of unprotected ones.

    From trusted links also the published ports of the others (com.docker.network.bridge.trusted_host_interfaces), and
    with --allow-direct-routing from all links but containers'.
    """
    to = nft.load_meta(nft.META_OIFNAME)
    routed = (to, nft.in_set(_ROUTED + family.suffix), *family.matches)
    source = (family.load(family.source), nft.in_set(PUBLISH_ALLOW + family.suffix)) if allows else ()
    port = (
        nft.load_meta(nft.META_L4PROTO, R0),
        family.load(family.destination, R0 + 1),
        nft.load_transport_header(2, 2, R0 + 1 + family.words),
        nft.in_set(ROUTED_PORTS + family.suffix, R0),
    )
    echo, protocol = (_ECHO, 1) if family is IPV4 else (_ECHO6, 58)
    ping = (nft.load_meta(nft.META_L4PROTO), nft.equal(bytes((protocol,))), nft.load_transport_header(0, 1))
    foreign = (nft.load_meta(nft.META_IIFNAME), nft.not_in_set(_BRIDGES))
    trusted = (nft.load_meta(nft.META_IIFNAME, 1), nft.load_meta(nft.META_OIFNAME, 2), nft.in_set(_TRUSTED))
    name = f"IPv{family.version}"
    return [
        nft.Rule(
            _FORWARD.name,
            (*trusted, *family.matches, *source, *port, nft.accept()),
            f"trusted links: published ports, {name}",
        ),
        nft.Rule(
            _FORWARD.name,
            (*foreign, to, nft.in_set(_DIRECT), *family.matches, *source, *port, nft.accept()),
            f"direct routing: published ports, {name}",
        ),
        nft.Rule(_FORWARD.name, (*routed, *source, *port, nft.accept()), f"routed networks: published ports, {name}"),
        nft.Rule(
            _FORWARD.name, (*routed, *source, *ping, nft.equal(echo), nft.accept()), f"routed networks: ping, {name}"
        ),
        nft.Rule(
            _FORWARD.name,
            (*foreign, to, nft.in_set(_OPEN + family.suffix), *family.matches, nft.accept()),
            f"unprotected networks, {name}",
        ),
    ]


def _not_allowed(family: Family) -> nft.Rule:
    """Who isn't meant to reach published ports. The host's own packets don't come here."""
    return nft.Rule(
        _FORWARD.name,
        (
            *_link_in(nft.META_OIFNAME),
            *_DNATTED,
            *family.matches,
            family.load(family.source),
            nft.not_in_set(PUBLISH_ALLOW + family.suffix),
            nft.counter(),
            nft.drop(),
        ),
        f"published ports: not for this address, IPv{family.version}",
    )


def _network_rules(item: BridgeRules) -> list[nft.Rule]:
    bridge = nft.link_name(item.bridge_name)
    rules = []
    for interface in item.interfaces:
        family = IPV4 if interface.version == 4 else IPV6
        source = family.source_in(interface.network)
        back = (nft.load_meta(nft.META_OIFNAME), nft.equal(bridge), *_DNATTED)
        name = f"{item.bridge_name}, IPv{family.version}"
        rules.append(
            nft.Rule(
                _SNAT.name,
                (*source, *back, nft.masquerade()),
                f"{name}: a container to a published port, its own too",
            )
        )
        if item.ip_masq and not item.internal and item.mode(interface.version) != ROUTED:
            away = (nft.load_meta(nft.META_OIFNAME), nft.unequal(bridge))
            rules.append(nft.Rule(_SNAT.name, (*source, *away, nft.masquerade()), f"{name}: out"))
    return rules


def _link_in(direction: int) -> tuple[bytes, bytes]:
    return nft.load_meta(direction), nft.in_set(_BRIDGES)
