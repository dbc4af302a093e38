"""One engine's nftables table, kept in step with its endpoints. It must never touch another table."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from tare import faults
from tare.errors import KernelError
from tare.kernel.netlink import is_missing
from tare.kernel.nftables import NFPROTO_INET, NftablesSocket, Transaction
from tare.network import rules
from tare.network.port_guard import PortGuard
from tare.network.records import BRIDGE, EndpointRecord, NetworkRecord
from tare.network.rule_listing import ListedTable, list_table
from tare.network.store import NetworkStore

_HOOK_FORWARD = 2


class Table:
    """Publishing is one element; whenever the table isn't as it should be, it is built anew from what is recorded."""

    def __init__(self, name: str, store: NetworkStore, allow: Sequence[str] = ()) -> None:
        self.name = name
        self._allow = [ipaddress.IPv4Network(text) for text in allow]
        self._store = store
        self._socket = NftablesSocket()
        self.guard = PortGuard(name)

    def publish(self, record: EndpointRecord) -> None:
        """Opens the endpoint's ports; it must be recorded already."""
        try:
            self._socket.commit(rules.publish(self.name, published(record)))
        except KernelError as error:
            if not is_missing(error):
                raise
            self.rebuild()

    def unpublish(self, record: EndpointRecord, *, is_recorded: bool = True) -> None:
        """Closes the endpoint's ports. is_recorded: whether the database still says that they are open."""
        try:
            self._socket.commit(rules.unpublish(self.name, published(record)))
        except KernelError as error:
            if not is_missing(error):
                raise
            self.rebuild(without=record.endpoint_id if is_recorded else "")

    def rebuild(self, without: str = "") -> None:
        """The whole table in one transaction: no packet meets half of it."""
        bridges = self._bridges()
        ports = [
            port for record in self._store.endpoints() if record.endpoint_id != without for port in published(record)
        ]
        self._socket.commit(rules.build_table(self.name, bridges, ports, self._allow))
        faults.point("network.table.built")

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
        wanted = rules.rule_count(self._bridges(), allows=bool(self._allow))
        return self._socket.rule_count(self.name) == wanted

    def _bridges(self) -> list[rules.BridgeRules]:
        return [
            _bridge_rules(record)
            for record in self._store.networks()
            if record.driver == BRIDGE and not record.unsettled
        ]

    def remove(self) -> None:
        transaction = Transaction(self.name)
        transaction.delete_table()
        self._socket.commit(transaction)
        self.guard.remove()

    def foreign_drops(self) -> list[tuple[str, str]]:
        """Table and chain of others that drop forwarded packets unless a rule of theirs accepts them."""
        return [
            (chain.table, chain.name)
            for chain in self._socket.base_chains()
            if chain.hook == _HOOK_FORWARD and chain.drops_by_default and chain.table != self.name
        ]

    def close(self) -> None:
        self._socket.close()
        self.guard.close()


def _bridge_rules(record: NetworkRecord) -> rules.BridgeRules:
    return rules.BridgeRules(
        record.bridge_name,
        record.interface.network,
        record.icc,
        record.ip_masq,
        record.internal,
        record.interface.ip,
    )


def published(record: EndpointRecord) -> Iterable[rules.PublishedPort]:
    for binding in record.ports:
        yield rules.PublishedPort(
            protocol=binding.protocol,
            host_ip=ipaddress.IPv4Address(binding.host_ip),
            host_port=binding.host_port,
            container_ip=ipaddress.IPv4Address(record.ip),
            container_port=binding.container_port,
        )
