"""One engine's nftables table, kept in step with its endpoints. It must never touch another table."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Collection, Iterable, Sequence

import msgspec

from tare import faults
from tare.errors import KernelError
from tare.kernel.netlink import is_missing
from tare.kernel.nftables import NFPROTO_INET, Element, NftablesSocket, Transaction
from tare.network import egress_rules, rules
from tare.network.egress import Policy, allowed_subnets, both, named_ports, parse_policy
from tare.network.learned_ways import GRACE_S, LearnedWays
from tare.network.port_guard import PortGuard, addresses_of
from tare.network.records import BRIDGE, EndpointRecord, NetworkRecord
from tare.network.rule_listing import ListedTable, list_table
from tare.network.store import NetworkStore

HOOK_INPUT, HOOK_FORWARD = 1, 2
_FIRST_GROUP, _GROUPS = 20_000, 20_000  # nflog's, by the table's name: engines beside each other have their own


class Table:
    """Publishing is one element; whenever the table isn't as it should be, it is built anew from what is recorded."""

    def __init__(self, name: str, store: NetworkStore, allow: Sequence[str] = (), *, direct: bool = False) -> None:
        self.name = name
        self._direct = direct
        self.allow = [ipaddress.ip_network(text) for text in allow]
        self._store = store
        self._socket = NftablesSocket()
        self.guard = PortGuard(name)
        self._learned = LearnedWays()
        self.group = _FIRST_GROUP + zlib.crc32(name.encode()) % _GROUPS

    def bind(self, record: EndpointRecord) -> None:
        """Holds a recorded endpoint to its egress policy; before its link is up."""
        sources = self._bound([record])
        if not sources:
            return
        transaction = Transaction(self.name)
        egress_rules.add_sources(transaction, sources)
        try:
            self._socket.commit(transaction)
        except KernelError:
            self.rebuild()  # the first one: there is no chain for it yet, but it is among the records
            return
        if not self._has_rules():
            self.rebuild()

    def learn(self, record: EndpointRecord, name: str, addresses: Iterable[str], seconds: int) -> None:
        """Lets an endpoint send for a while to what it found under a name, as far as its policies name it."""
        policies = self.policies_of(record)
        transaction = Transaction(self.name)
        for text in self._learned.wanted(record.endpoint_id, name, addresses, seconds):
            ports = named_ports(policies, name, ipaddress.ip_address(text))
            for own in filter(None, (record.ip, record.ip6)):
                egress_rules.add_named(transaction, own, text, ports, (seconds + GRACE_S) * 1000)
        try:
            self._socket.commit(transaction)
        except KernelError as error:
            if not is_missing(error):
                raise  # without the table nobody is bound; its return brings no name back, the next question does

    def policies_of(self, record: EndpointRecord) -> tuple[Policy, ...]:
        """What holds for an endpoint: its network's policy and its container's."""
        network = self._store.network_by_id(record.network_id)
        return both(parse_policy(network.egress if network is not None else ""), parse_policy(record.egress))

    def _bound(self, records: Iterable[EndpointRecord]) -> tuple[egress_rules.BoundSource, ...]:
        networks = {record.network_id: parse_policy(record.egress) for record in self._store.networks()}
        found = []
        for record in records:
            policies = both(networks.get(record.network_id), parse_policy(record.egress))
            if policies:
                subnets = tuple(allowed_subnets(policies))
                found += [egress_rules.BoundSource(ipaddress.ip_address(own), subnets) for own in addresses_of(record)]
        return tuple(found)

    def _egress(self, records: Collection[EndpointRecord]) -> rules.Egress | None:
        sources = self._bound(records)
        if not sources:
            return None
        stale = {address for record in records if record.stale_names for address in addresses_of(record)}
        kept = [source.address.packed for source in sources if str(source.address) not in stale]
        named = {
            item.name: [
                Element(element.key, timeout_ms=element.timeout_ms)
                for element in self._socket.elements(self.name, item.name)
                if element.key.startswith(tuple(kept))
            ]
            for item in egress_rules.NAMED
        }
        return rules.Egress(sources, self.group, named)

    def publish(self, record: EndpointRecord) -> None:
        """Opens the endpoint's ports; it must be recorded already."""
        try:
            self._socket.commit(rules.publish(self.name, self._published(record)))
        except KernelError as error:
            if not is_missing(error):
                raise
            self.rebuild()

    def unpublish(self, record: EndpointRecord, *, is_recorded: bool = True) -> None:
        """Closes the endpoint's ports. is_recorded: whether the database still says that they are open."""
        own = [] if is_recorded else self._store.endpoints_of(record.container_id)
        # Of two host ports that lead to the same port of the container, the other one may still be open.
        kept = {port for item in own if item.endpoint_id == record.endpoint_id for port in self._published(item)}
        gone = [port for port in self._published(record) if port not in kept]
        try:
            self._socket.commit(rules.unpublish(self.name, gone))
        except KernelError as error:
            if not is_missing(error):
                raise
            self.rebuild(without=record.endpoint_id if is_recorded else "")

    def _is_direct(self, record: EndpointRecord) -> bool:
        network = self._store.network_by_id(record.network_id)
        return self._direct or (network is not None and bool(network.trusted_links))

    def _published(self, record: EndpointRecord) -> list[rules.PublishedPort]:
        """An endpoint's ports as the rules want them; where links are trusted, at its own address, too."""
        found = list(published(record))
        if self._is_direct(record):
            found += [
                msgspec.structs.replace(port, host_ip=port.container_ip, host_port=0)
                for port in found
                if port.host_port
            ]
        return list(dict.fromkeys(found))

    def rebuild(self, without: str = "") -> None:
        """The whole table in one transaction: no packet meets half of it.

        What a container with another policy (stale_names) may send to by name is found anew.
        """
        self._learned.clear()
        bridges = self._bridges()
        records = [record for record in self._store.endpoints() if record.endpoint_id != without]
        ports = [port for record in records for port in self._published(record)]
        egress = self._egress(records)
        self._socket.commit(rules.build_table(self.name, bridges, ports, self.allow, egress))
        faults.point("network.table.built")
        stale = [record for record in records if record.stale_names]
        if stale:
            self._store.put_endpoint(*(msgspec.structs.replace(record, stale_names=False) for record in stale))

    def rebuild_all(self) -> None:
        """This table and the guard of ports."""
        self.guard.rebuild(self._store.endpoints())
        self.rebuild()

    def listing(self) -> tuple[ListedTable, ...]:
        """Both tables as the kernel has them."""
        own = list_table(self._socket, self.name, NFPROTO_INET, rules.SETS, self._has_rules())
        return (own, self.guard.listing()) if self.guard.is_there else (own,)

    def is_whole(self) -> bool:
        """Whether the table still has the rules that it was built with."""
        return self._has_rules() and self.guard.is_whole()

    def _has_rules(self) -> bool:
        sources = self._bound(self._store.endpoints())
        egress = rules.Egress(sources, self.group) if sources else None
        wanted = rules.rule_count(self._bridges(), allows=bool(self.allow), egress=egress)
        return self._socket.rule_count(self.name) == wanted

    def _bridges(self) -> list[rules.BridgeRules]:
        return [
            msgspec.structs.replace(_bridge_rules(record), direct=self._direct)
            for record in self._store.networks()
            if record.driver == BRIDGE and not record.unsettled
        ]

    def remove(self) -> None:
        transaction = Transaction(self.name)
        transaction.delete_table()
        self._socket.commit(transaction)
        self.guard.remove()

    def foreign_drops(self, hook: int = HOOK_FORWARD) -> list[tuple[str, str]]:
        """Table and chain of others that drop packets of a hook unless a rule of theirs accepts them."""
        return [
            (chain.table, chain.name)
            for chain in self._socket.base_chains()
            if chain.hook == hook and chain.drops_by_default and chain.table != self.name
        ]

    def close(self) -> None:
        self._socket.close()
        self.guard.close()


def _bridge_rules(record: NetworkRecord) -> rules.BridgeRules:
    return rules.BridgeRules(
        record.bridge_name,
        record.interfaces,
        record.icc,
        record.ip_masq,
        record.internal,
        record.gateway_modes,
        record.trusted_links,
    )


def published(record: EndpointRecord) -> Iterable[rules.PublishedPort]:
    for binding in record.ports:
        if (record.ip6 if ":" in binding.host_ip else record.ip) == "":
            continue  # it came from a network with another kind of addresses
        yield rules.PublishedPort(
            protocol=binding.protocol,
            host_ip=ipaddress.ip_address(binding.inside or binding.host_ip),
            host_port=binding.host_port,
            container_ip=ipaddress.ip_address(record.ip6 if ":" in binding.host_ip else record.ip),
            container_port=binding.container_port,
        )
