"""What a name means to a container: the containers of its networks, their aliases, the host. No I/O but the store.

It must never be told of a change twice: whoever changes endpoints calls `forget`, and the next question reads the
records anew.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tare.network.egress import Policy, both, may_ask, parse_policy
from tare.network.host_resolvers import HostResolvers
from tare.network.records import EndpointRecord, NetworkRecord
from tare.network.store import NetworkStore

HOST_NAMES = ("host.docker.internal", "host.tare.internal")
"""The host, by the address of it that a container reaches."""


_LEAST_S, _MOST_S = 60, 3600  # how long a name's address may be sent to after the answer


class _Index(NamedTuple):
    """All endpoints, by what they are asked for."""

    networks: dict[str, NetworkRecord]
    by_container: dict[str, list[EndpointRecord]]
    by_name: dict[tuple[str, str], list[str]]
    by_address: dict[tuple[str, str], str]


class Names:
    """The names of one engine's containers."""

    def __init__(self, store: NetworkStore, resolvers: HostResolvers) -> None:
        self._store = store
        self._index: _Index | None = None
        self._turn = itertools.count()
        self.resolvers = resolvers
        self.learned: Callable[[EndpointRecord, str, Sequence[str], int], None] | None = None

    def may_ask(self, records: Sequence[EndpointRecord], name: str) -> bool:
        """Whether one of a container's endpoints may look a name up outside."""
        return not records or any(may_ask(self._policies(record), name) for record in records)

    def learn(self, records: Sequence[EndpointRecord], name: str, addresses: Sequence[str], seconds: int) -> None:
        """Hands on what was found under a name to the endpoints that have policies."""
        if self.learned is None:
            return
        outside = [text for text in addresses if not _is_near(text)]
        for record in records:
            if outside and self._policies(record):
                self.learned(record, name, outside, min(max(seconds, _LEAST_S), _MOST_S))

    def _policies(self, record: EndpointRecord) -> tuple[Policy, ...]:
        network = self.index().networks.get(record.network_id)
        return both(parse_policy(network.egress if network is not None else ""), parse_policy(record.egress))

    def forget(self) -> None:
        """Endpoints have changed."""
        self._index = None

    def of(self, container_id: str) -> ContainerNames:
        """Names as a container sees them."""
        return ContainerNames(self, container_id)

    def index(self) -> _Index:
        if self._index is None:
            self._index = self._read()
        return self._index

    def in_turn(self, addresses: list[str]) -> list[str]:
        """The addresses, each question beginning with another one."""
        first = next(self._turn) % len(addresses)
        return addresses[first:] + addresses[:first]

    def _read(self) -> _Index:
        made = _Index({record.network_id: record for record in self._store.networks()}, {}, {}, {})
        for record in self._store.endpoints():
            made.by_container.setdefault(record.container_id, []).append(record)
            network = made.networks.get(record.network_id)
            if network is None or not network.names_containers or not record.link:
                continue
            own = [text for text in (record.ip, record.ip6) if text]
            for name in dict.fromkeys(name.lower() for name in record.names):
                made.by_name.setdefault((record.network_id, name), []).extend(own)
            for text in own:
                made.by_address[record.network_id, text] = f"{record.container_name}.{record.network}"
        return made


class ContainerNames:
    """Names as one container sees them: those of its own networks only."""

    def __init__(self, names: Names, container_id: str) -> None:
        self._names = names
        self._container_id = container_id

    def addresses(self, name: str) -> list[str] | None:
        """The addresses of a name (lower case, without the last dot); None if it isn't one of ours."""
        index = self._names.index()
        for record in self._endpoints(index):
            found = index.by_name.get((record.network_id, self._unlinked(record, name)))
            if found is None and name.endswith(suffix := f".{record.network.lower()}"):
                found = index.by_name.get((record.network_id, name.removesuffix(suffix)))
            if found:
                return self._names.in_turn(found)
        if name in HOST_NAMES:
            own = [record for record in self._endpoints(index) if not record.is_stacked]
            leading = [record for record in own if record.gateway or record.gateway6]
            return [text for record in leading[:1] for text in (record.gateway, record.gateway6) if text] or None
        return None

    def name_of(self, address: str) -> str | None:
        """The name of a container of one's own networks, with its network's; None if it isn't one of ours."""
        index = self._names.index()
        for record in self._endpoints(index):
            found = index.by_address.get((record.network_id, address))
            if found is not None:
                return found
        return None

    def servers(self) -> list[str]:
        """Who is asked what nobody here knows; nobody, if all one's networks are internal (CVE-2024-29018)."""
        index = self._names.index()
        records = self._endpoints(index)
        outward = [record for record in records if not _is_internal(index, record)]
        if not outward:
            return []
        own = next((record.nameservers for record in records if record.nameservers), ())
        return list(own) or self._names.resolvers.read()

    def may_ask(self, name: str) -> bool:
        """Whether the container's egress policies let it ask others for a name."""
        return self._names.may_ask(self._endpoints(self._names.index()), name)

    def learn(self, name: str, addresses: list[str], seconds: int) -> None:
        """Others have answered, or the name is the host's: what a policy says of it holds for these addresses."""
        self._names.learn(self._endpoints(self._names.index()), name, addresses, seconds)

    def _endpoints(self, index: _Index) -> list[EndpointRecord]:
        return index.by_container.get(self._container_id, [])

    @staticmethod
    def _unlinked(record: EndpointRecord, name: str) -> str:
        """What a link's alias stands for."""
        return next((target.lower() for target, alias in record.links if alias.lower() == name), name)


def _is_near(text: str) -> bool:
    """Whether a foreign resolver may open no way to an address: a cloud's metadata, this machine, a group."""
    address = ipaddress.ip_address(text)
    return address.is_link_local or address.is_loopback or address.is_multicast or address.is_unspecified


def _is_internal(index: _Index, record: EndpointRecord) -> bool:
    network = index.networks.get(record.network_id)
    return network is None or network.leads_nowhere
