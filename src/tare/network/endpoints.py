"""Each container's endpoints, from attach to release: links, addresses, default route, published ports.

It must never enter a namespace or wait for a link's deletion on the path of a start or an end.

    attach      namespace (pool) → host ports held → lease + endpoint recorded → links, address, route → map elements
    release     map elements → host ports → endpoint gone, lease leaving → namespace dropped … link gone, address free
    connect     sockets inside (launcher) → as attach, for one network more → default route and ports where they belong
    disconnect  ports handed on → as release, for one network → its link deleted → default route
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import msgspec

from tare import faults
from tare.errors import Conflict, Forbidden, InvalidArgument, NotFound
from tare.kernel.namespaces import open_namespace
from tare.kernel.netlink_route import RouteSocket
from tare.kernel.netns import Netns
from tare.network import bridge, endpoint_links, outgoing, rates, stacked_networks
from tare.network.bridges import Bridges
from tare.network.doors import OpenInside
from tare.network.endpoint_leases import asked_addresses, record_endpoint
from tare.network.gateways import choose_gateway
from tare.network.leaving import Leaving
from tare.network.name_server import RESOLVER_ADDRESS, NameServer
from tare.network.names import Names
from tare.network.namespace_pool import NamespacePool
from tare.network.port_guard import PortGuard
from tare.network.publishing import Publishing
from tare.network.rates import Rate
from tare.network.records import (
    HOST,
    Endpoint,
    EndpointRecord,
    EndpointRequest,
    NetworkRecord,
    PortBinding,
    PortRequest,
)
from tare.network.store import NetworkStore
from tare.storage.database import Database
from tare.values.ids import new_id


class Sandbox:
    """A live container's network namespace, held, and the server of names in it."""

    def __init__(self, namespace_fd: int) -> None:
        self.namespace_fd = namespace_fd
        self.server: NameServer | None = None

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        os.close(self.namespace_fd)


class Endpoints:
    """All endpoints of one engine."""

    def __init__(
        self,
        db: Database,
        store: NetworkStore,
        bridges: Bridges,
        publishing: Publishing,
        leaving: Leaving,
        pool: NamespacePool,
        sock: RouteSocket,
        open_inside: OpenInside,
        names: Names,
        guard: PortGuard | None,
    ) -> None:
        self._db = db
        self._store = store
        self._bridges = bridges
        self._publishing = publishing
        self._leaving = leaving
        self._pool = pool
        self._route = sock
        self._open_inside = open_inside
        self._names = names
        self._guard = guard
        self.sandboxes: dict[str, Sandbox] = {}

    def close(self) -> None:
        while self.sandboxes:
            self.sandboxes.popitem()[1].close()

    # ── a container starts and ends ──────────────────────────────────────────────────────────────────────────────

    async def attach(
        self, container_id: str, *requests: EndpointRequest, id_maps: tuple[str, str] | None = None
    ) -> Endpoint:
        """Gives the container its place in its networks; on failure nothing of it is left."""
        self._check_detached(container_id)
        for request in requests:
            rates.check_kernel(self._route, request.rate)
        networks = [self._joinable(request.mode) for request in requests]
        if networks[0].name == HOST:
            return Endpoint(record=self._record_only(container_id, networks[0], requests[0]), namespace_fd=None)
        await self._wait_addresses(networks, requests)
        namespace = await self._pool.take(id_maps)
        sandbox = Sandbox(namespace.namespace_fd)
        try:
            if any(network.subnet6 for network in networks):
                os.close((await self._open_inside(namespace.namespace_fd, "", True))[0])
            self._check_detached(container_id)  # again: meanwhile somebody else may have attached it
            networks = [self.network(request.mode) for request in requests]
            records = self._join_all(container_id, networks, requests, namespace)
            try:
                if any(network.names_containers for network in networks):
                    await self._serve_names(container_id, sandbox)
            except BaseException:
                for record in records:
                    self._leave(record, namespace.namespace_fd)
                raise
        except BaseException:
            namespace.close()
            raise
        self.sandboxes[container_id] = sandbox
        RouteSocket(namespace.rtnetlink_socket_fd).close()  # it would keep the namespace alive
        return Endpoint(record=records[0], namespace_fd=namespace.namespace_fd, more=tuple(records[1:]))

    async def resume(self, container_id: str, pid: int) -> None:
        """Takes up a live container of an earlier process of this engine: its namespace, its server of names."""
        records = self._store.endpoints_of(container_id)
        if container_id in self.sandboxes or any(record.network == HOST for record in records):
            return
        sandbox = Sandbox(open_namespace(f"/proc/{pid}/ns/net"))
        self.sandboxes[container_id] = sandbox
        await self.relink(container_id)
        if any(self._names_containers(record) for record in records):
            await self._serve_names(container_id, sandbox)

    async def relink(self, container_id: str) -> list[str]:
        """Makes a live container's links anew that somebody deleted; returns their networks' names."""
        records = self._store.endpoints_of(container_id)
        sandbox = self.sandboxes.get(container_id)
        lost = [
            record
            for record in records
            if record.link and sandbox is not None and not self._bridges.is_connected(record, sandbox.namespace_fd)
        ]
        unhurried = [record for record in records if record not in lost and not self._is_held(record)]
        if not (lost or unhurried):
            return []
        try:
            _, namespace = await self._enter(container_id, ipv6=any(record.ip6 for record in lost))
        except Conflict:
            return []  # it has ended meanwhile
        try:
            left = {record.endpoint_id for record in self._store.endpoints_of(container_id)}
            lost, unhurried = ([one for one in some if one.endpoint_id in left] for some in (lost, unhurried))
            for record in lost:
                network = self._bridges.get(record.network_id)
                if network is not None:
                    self._bridges.connect(record, namespace, default_route=False)
                    faults.point("network.repair.link")
            for record in unhurried:
                self._bridges.set_rate(record, namespace)
            self._settle(container_id, namespace)
        finally:
            os.close(namespace.rtnetlink_socket_fd)
        return [record.network for record in (*lost, *unhurried)]

    def _is_held(self, record: EndpointRecord) -> bool:
        """Whether an endpoint's rate is as it should be, as far as it stands on the host."""
        return not self._bridges.rates_held or outgoing.is_whole(self._route, record)

    async def release(self, container_id: str) -> None:
        """Takes the container off its networks; nothing to do is fine. Its processes should be gone by now."""
        records = self._store.endpoints_of(container_id)
        sandbox = self.sandboxes.get(container_id)
        for record in records:
            self._leave(record, sandbox.namespace_fd if sandbox is not None else None)
        if sandbox is not None:
            self.sandboxes.pop(container_id)
            sandbox.close()
        if any(record.link for record in records):
            self._leaving.watch_nowait()

    # ── a container runs ─────────────────────────────────────────────────────────────────────────────────────────

    async def connect(self, container_id: str, request: EndpointRequest) -> EndpointRecord:
        """Puts a live container into one more network. Raises Conflict if it isn't live."""
        network = self._joinable(request.mode)
        rates.check_kernel(self._route, request.rate)
        await self._wait_addresses([network], [request])
        sandbox, namespace = await self._enter(container_id, ipv6=bool(network.subnet6))
        try:
            network = self.network(request.mode)  # again: it may have been removed meanwhile
            before = self._store.endpoints_of(container_id)
            unpublished = not any(record.ports for record in before)
            inside = _inside(request, network, before)
            ports = request.ports if unpublished and not network.leads_nowhere and not network.is_stacked else ()
            record = self._join(container_id, network, request, namespace, inside, ports, leads_out=False)
            try:
                self._settle(container_id, namespace)
                faults.point("network.connect.joined")
                if network.names_containers and sandbox.server is None:
                    await self._serve_names(container_id, sandbox)
            except BaseException:
                self._leave(record, namespace.namespace_fd)
                self._leaving.watch_nowait()
                raise
        finally:
            os.close(namespace.rtnetlink_socket_fd)
        return record

    async def disconnect(self, container_id: str, network_id: str) -> None:
        """Takes a live container off a network; one that isn't on it is left alone."""
        _, namespace = await self._enter(container_id)
        try:
            records = self._store.endpoints_of(container_id)
            left = next((record for record in records if record.network_id == network_id), None)
            if left is None:
                return
            others = [record for record in records if record is not left]
            heir = self._gateway(others) or next(iter(others), None)
            if left.ports and heir is not None and not heir.is_stacked:
                left = self._publishing.move(left, heir)
            self._leave(left, namespace.namespace_fd)
            if left.is_stacked:
                await self._leaving.wait_deleted()
            else:
                await self._leaving.delete_links([left.link])
            faults.point("network.disconnect.left")
            self._leaving.watch_nowait()
            if container_id in self.sandboxes:
                self._settle(container_id, namespace)
        finally:
            os.close(namespace.rtnetlink_socket_fd)

    def publish(self, container_id: str, ports: tuple[PortRequest, ...]) -> None:
        """Publishes more ports of a live container; all or none. Raises ResourceExhausted, Conflict, Unsupported."""
        record = self._gateway(self._store.endpoints_of(container_id))
        if record is None:
            raise Conflict(f"container {container_id} is on no network that leads to the host's ports")
        if record.is_stacked:
            raise InvalidArgument(
                f"network {record.network} ({record.driver}) doesn't publish ports: its containers are reached directly"
            )
        self._publishing.add(record, ports, self.network(record.network_id))

    def unpublish(self, container_id: str, chosen: Callable[[PortBinding], bool]) -> int:
        """Takes back published ports; connections that are open go on. Returns how many it were."""
        return sum(self._publishing.take_back(record, chosen) for record in self._store.endpoints_of(container_id))

    async def set_rate(self, container_id: str, network_id: str, rate: Rate | None) -> None:
        """Makes a live container's endpoint so fast from now on (None: as fast as it can)."""
        rates.check_kernel(self._route, rate)
        _, namespace = await self._enter(container_id)
        try:
            for record in self._store.endpoints_of(container_id):
                if record.network_id == network_id and record.link:
                    changed = msgspec.structs.replace(record, rate=rate)
                    self._store.put_endpoint(changed)
                    faults.point("network.rate.recorded")
                    self._bridges.set_rate(changed, namespace)
                    if rate is None:
                        await self._leaving.delete_links([outgoing.link_of(changed)])
        finally:
            os.close(namespace.rtnetlink_socket_fd)

    def set_egress(self, container_id: str, egress: str) -> None:
        """Holds a live container to another egress policy from now on; raises before anything changed."""
        records = self._store.endpoints_of(container_id)
        changed = [
            msgspec.structs.replace(record, egress=egress, stale_names=True) for record in records if record.link
        ]
        for record in changed:
            self._publishing.check_bind(record, self.network(record.network_id))
        self._store.put_endpoint(*changed)
        self._names.forget()
        faults.point("network.egress.recorded")
        for record in changed:
            self._publishing.unbind(record, always=True)

    # ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────

    def network(self, ref: str) -> NetworkRecord:
        """A network by name or id. Raises NotFound with Docker's text."""
        record = self._store.network(ref) or self._store.network_by_id(ref)
        if record is None or record.unsettled:
            raise NotFound(f"network {ref} not found")
        return record

    def _joinable(self, ref: str) -> NetworkRecord:
        """A network that containers can be in. Raises NotFound, Forbidden with Docker's texts."""
        record = self.network(ref)
        if record.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        return record

    def _names_containers(self, record: EndpointRecord) -> bool:
        network = self._store.network_by_id(record.network_id)
        return network is not None and network.names_containers

    async def _serve_names(self, container_id: str, sandbox: Sandbox) -> None:
        fds = await self._open_inside(sandbox.namespace_fd, RESOLVER_ADDRESS, False)
        server = NameServer(fds, self._names.of(container_id))
        if self.sandboxes.get(container_id, sandbox) is not sandbox:
            server.close()
            raise Conflict(f"container {container_id} is not running")
        sandbox.server = server
        await server.start()

    async def _enter(self, container_id: str, *, ipv6: bool = False) -> tuple[Sandbox, Netns]:
        """A live container's sandbox, and a way to configure it: the caller closes its rtnetlink socket."""
        sandbox = self.sandboxes.get(container_id)
        if sandbox is None:
            raise Conflict(f"container {container_id} is not running")
        fds = await self._open_inside(sandbox.namespace_fd, "", ipv6)
        if self.sandboxes.get(container_id) is not sandbox:
            os.close(fds[0])
            raise Conflict(f"container {container_id} is not running")
        return sandbox, Netns(sandbox.namespace_fd, fds[0])

    def _check_detached(self, container_id: str) -> None:
        if self._store.endpoint(container_id) is not None:
            raise Conflict(f"container {container_id} is already attached to a network")

    async def _wait_addresses(self, networks: Sequence[NetworkRecord], requests: Sequence[EndpointRequest]) -> None:
        """An address asked for may be on its way out: a container that is restarted had it a moment ago."""
        for network, request in zip(networks, requests, strict=True):
            if (request.ip or request.ip6) and network.has_links:
                for pool, address in asked_addresses(network, self._bridges.find(network), request):
                    await self._leaving.wait_free(lambda a=address, p=pool: not p.is_leaving(a))  # type: ignore[misc]

    def _join_all(
        self,
        container_id: str,
        networks: Sequence[NetworkRecord],
        requests: Sequence[EndpointRequest],
        namespace: Netns,
    ) -> list[EndpointRecord]:
        if len({network.network_id for network in networks}) < len(networks):
            raise Forbidden(f"endpoint with name {requests[0].container_name} already exists in the same network")
        if not networks[0].has_links:
            return [self._record_only(container_id, networks[0], requests[0])]
        ways = [(n.name, n.leads_nowhere, r.priority) for n, r in zip(networks, requests, strict=True)]
        gateway = choose_gateway(ways)
        ports = tuple(port for request in requests for port in request.ports)
        records: list[EndpointRecord] = []
        with ExitStack() as undo:
            for place, (network, request) in enumerate(zip(networks, requests, strict=True)):
                leads_out = place == gateway
                inside = _inside(request, network, records)
                own = ports if leads_out and not network.is_stacked else ()
                record = self._join(container_id, network, request, namespace, inside, own, leads_out=leads_out)
                undo.callback(self._leave, record, namespace.namespace_fd)
                records.append(record)
            undo.pop_all()
        return records

    def _record_only(self, container_id: str, network: NetworkRecord, request: EndpointRequest) -> EndpointRecord:
        record = EndpointRecord(
            container_id=container_id,
            endpoint_id=new_id(),
            network=network.name,
            network_id=network.network_id,
            container_name=request.container_name,
            driver=network.driver,
        )
        with self._db.transaction(durable=False) as tx:
            self._store.add_endpoint(tx, record)
        return record

    def _join(
        self,
        container_id: str,
        network: NetworkRecord,
        request: EndpointRequest,
        namespace: Netns,
        inside: str,
        ports: tuple[PortRequest, ...],
        *,
        leads_out: bool,
    ) -> EndpointRecord:
        """One endpoint: recorded, linked, published."""
        if request.mac is not None and not bridge.is_unicast_mac(request.mac):
            raise InvalidArgument(f"invalid MAC address {request.mac}")
        to = self._bridges.find(network)
        endpoint_id = new_id()
        with ExitStack() as undo:
            bindings = self._publishing.reserve(endpoint_id, network, request.container_name, ports)
            undo.callback(self._publishing.give_back, bindings)
            self._leaving.collect()
            record = record_endpoint(
                self._db,
                self._store,
                container_id,
                endpoint_id,
                request,
                to,
                inside=inside,
                bindings=bindings,
                guards=self._guard is not None and self._guard.is_there,
            )
            undo.callback(self._leaving.watch_nowait)
            undo.callback(self._publishing.unbind, record)
            undo.callback(self._store.remove_endpoint, record)
            faults.point("network.attach.recorded")
            if self._guard is not None and record.guarded:
                undo.callback(self._guard.dismiss, record)
                self._guard.admit(record)
            self._publishing.bind(record, network)
            if record.rate is not None:
                undo.callback(self._leaving.delete_nowait, outgoing.link_of(record))
            if record.is_stacked:
                stacked_networks.check_endpoint(record, request.mac)
                undo.callback(self._leaving.delete_inside_nowait, namespace.namespace_fd, record)
            self._bridges.connect(record, namespace, default_route=leads_out)
            faults.point("network.attach.connected")
            self._publishing.open(record, bindings)
            undo.pop_all()
        self._names.forget()
        return record

    def _leave(self, record: EndpointRecord, namespace_fd: int | None) -> None:
        """One endpoint: ports closed, record gone, address on its way out."""
        if record.is_stacked and namespace_fd is not None:
            self._leaving.delete_inside_nowait(namespace_fd, record)
        if record.rate is not None:
            self._leaving.delete_nowait(outgoing.link_of(record))
        self._publishing.close_all(record)
        if self._guard is not None:
            self._guard.dismiss(record)
        self._store.remove_endpoint(record)
        self._publishing.unbind(record)
        self._names.forget()
        faults.point("network.release.forgotten")

    def _gateway(self, records: Sequence[EndpointRecord]) -> EndpointRecord | None:
        """The endpoint that has the default route."""
        able = [record for record in records if record.ip or record.ip6]
        networks = [self._store.network_by_id(record.network_id) for record in able]
        ways = [
            (record.network, network is None or network.leads_nowhere, record.priority)
            for record, network in zip(able, networks, strict=True)
        ]
        place = choose_gateway(ways)
        return able[place] if place is not None else None

    def _settle(self, container_id: str, namespace: Netns) -> None:
        """Default route and published ports belong to the network that leads out now."""
        records = self._store.endpoints_of(container_id)
        chosen = self._gateway(records)
        gateways = [text for record in records for text in endpoint_links.gateways_of(record)]
        leading = endpoint_links.gateways_of(chosen) if chosen is not None else []
        endpoint_links.lead_out(namespace, leading, gateways)
        for record in records:
            if (
                chosen is not None
                and not chosen.is_stacked
                and record.ports
                and record.endpoint_id != chosen.endpoint_id
            ):
                self._publishing.move(record, chosen)


def _inside(request: EndpointRequest, network: NetworkRecord, records: Sequence[EndpointRecord]) -> str:
    """What a link is to be called inside. Raises Conflict if another of the container's is called so."""
    if request.inside and any(record.inside == request.inside for record in records):
        raise Conflict(f"interface name {request.inside} is in use in the container already")
    return request.inside or _next_inside(network.inside_prefix, records)


def _next_inside(prefix: str, records: Sequence[EndpointRecord]) -> str:
    """The first free name for a link inside a container."""
    taken = {record.inside for record in records}
    return next(name for number in range(len(records) + 1) if (name := f"{prefix}{number}") not in taken)
