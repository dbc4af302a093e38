"""The network room's front: the default bridge, and each container's endpoint in it, from attach to release.

It must never fork, enter a namespace or wait for a link's deletion on a verb's path. What containers have in the kernel
bears their id (link alias), so that clean-up after a crash reads the kernel and the database, not memory.

    attach   namespace (pool) → host ports held → lease + endpoint recorded → links, address, route → map elements
    release  map elements → host ports → endpoint gone, lease leaving → namespace dropped … link gone, address free
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack

from tare import faults
from tare.errors import Conflict, Internal, InvalidArgument, NotFound, ResourceExhausted, Unavailable, Unsupported
from tare.kernel.netlink_route import Link, RouteSocket
from tare.kernel.netns import Netns
from tare.network import bridge, endpoint_links, flows, ipam
from tare.network.defaults import ensure_networks
from tare.network.host_ports import HostPorts
from tare.network.leaving import Leaving
from tare.network.namespace_pool import NamespacePool
from tare.network.records import (
    BRIDGE,
    HOST,
    NONE,
    Endpoint,
    EndpointRecord,
    EndpointRequest,
    NetworkRecord,
    NetworkSettings,
    PortBinding,
)
from tare.network.store import NetworkStore
from tare.network.table import Table, published
from tare.network.table_watch import TableWatch
from tare.storage.database import Database
from tare.values.ids import new_id

_log = logging.getLogger(__name__)


class Network:
    """One engine's networks. All methods run in the engine's event loop."""

    def __init__(self, db: Database, settings: NetworkSettings, make_netns: Callable[[], Awaitable[Netns]]) -> None:
        bridge.check_name(settings.bridge_name)
        self._db = db
        self._settings = settings
        self._store = NetworkStore(db)
        self._pool = NamespacePool(make_netns, settings.warm_namespaces)
        self._host_ports = HostPorts(settings.default_bind_address)
        self._namespaces: dict[str, int] = {}
        self._route = RouteSocket()
        self._table = Table(settings.table, self._store) if settings.firewall else None
        self._watch: TableWatch | None = None
        self._forgetting: set[asyncio.Future[None]] = set()
        self._leaving = Leaving(db, self._route)
        self._addresses: ipam.AddressPool | None = None
        self._bridge: Link | None = None
        self._interface = ipaddress.IPv4Interface("0.0.0.0/0")

    # ── the engine's life ────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Makes or repairs networks, bridge and table; ports of known endpoints stay published throughout."""
        self._store.migrate()
        ensure_networks(self._store, self._settings, self._route)
        if self._settings.enabled:
            self._interface = self._bridge_record().interface
            self.repair()
            self._addresses = ipam.AddressPool(self._db, self._interface)
            self._addresses.prepare()
            if self._table is not None and self._watch is None:
                self._watch = TableWatch(self._table)
        self._pool.refill_nowait()

    def repair(self) -> None:
        """Puts forwarding, bridge and table right, whatever became of them; running connections go on."""
        if self._settings.ip_forward and bridge.ensure_forwarding():
            _log.info("switched net.ipv4.ip_forward on")
        record = self._bridge_record()
        self._bridge = bridge.ensure_bridge(self._route, record, publishes=self._table is not None)
        for endpoint in self._store.endpoints():
            endpoint_links.plug_in(self._route, endpoint, self._bridge, isolated=not self._settings.icc)
        if self._table is not None:
            self._table.rebuild()

    async def restore(self, live: Collection[str]) -> None:
        """Makes what is there agree with the containers that live: ids with a running process."""
        for record in self._store.endpoints():
            if record.container_id in live:
                self._hold_again(record)
            else:
                await self.release(record.container_id)
        with self._db.transaction(durable=False) as tx:
            ipam.leave_orphans(tx)
        faults.point("network.restore.leases")
        if self._bridge is not None:
            if self._table is not None:
                self._table.rebuild()
            if not self._has_bridge_endpoints():
                bridge.drop_other_addresses(self._route, self._bridge, self._interface)
            strays = [
                link.name
                for link in self._route.links(self._bridge.ifindex)
                if endpoint_links.is_endpoint(link) and link.alias not in live
            ]
            await self._leaving.delete_links(strays)
        if self._leaving.collect():
            self._leaving.watch_nowait()

    async def wait_released(self) -> None:
        """Until the kernel has taken away what released endpoints had (shutdown, tests)."""
        await self._leaving.wait_gone()

    async def stop(self, *, remove: bool = False) -> None:
        """Lets go of everything but what live containers need. remove: of bridge and table too, if none is attached."""
        await self._pool.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await asyncio.gather(*self._forgetting)
        if remove and self._bridge is not None and not self._has_bridge_endpoints():
            await self._remove_bridge(self._bridge)
        await self._leaving.close()
        self._host_ports.close()
        for container_id in list(self._namespaces):
            self._drop_namespace(container_id)
        self._route.close()
        if self._table is not None:
            self._table.close()

    async def _remove_bridge(self, link: Link) -> None:
        await self._leaving.delete_links(
            [port.name for port in self._route.links(link.ifindex) if endpoint_links.is_endpoint(port)]
        )
        self._leaving.collect()
        if bridge.is_ours(link, self._bridge_record().network_id):
            await self._leaving.delete_links([link.name])
        if self._table is not None:
            self._table.remove()
        self._bridge = None

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────

    def networks(self) -> list[NetworkRecord]:
        return [record for record in self._store.networks() if self._settings.enabled or record.name != BRIDGE]

    def endpoint(self, container_id: str) -> EndpointRecord | None:
        return self._store.endpoint(container_id)

    def endpoints(self) -> list[EndpointRecord]:
        return self._store.endpoints()

    def gateway(self) -> str:
        """The host's address on the default bridge (`host-gateway`); empty without a bridge."""
        return str(self._interface.ip) if self._bridge is not None else ""

    def warnings(self) -> list[str]:
        """What in this host's packet filter keeps containers from talking, though our rules allow it."""
        if self._table is None:
            return []
        return [
            f"table {table}, chain {chain} drops forwarded packets unless a rule of its own accepts them: "
            f"allow {self._settings.bridge_name} there, or containers reach no other network"
            for table, chain in self._table.foreign_drops()
        ]

    # ── attach and release ───────────────────────────────────────────────────────────────────────────────────────

    async def attach(self, container_id: str, request: EndpointRequest) -> Endpoint:
        """Gives the container its place in a network; on failure nothing of it is left."""
        self._check_detached(container_id)
        if request.mode == HOST:
            return self._record_only(container_id, request, None)
        if request.mac is not None and not bridge.is_unicast_mac(request.mac):
            raise InvalidArgument(f"invalid MAC address: {request.mac}")
        namespace = await self._pool.take()
        try:
            self._check_detached(container_id)  # again: meanwhile somebody else may have attached it
            if request.mode == NONE:
                endpoint = self._record_only(container_id, request, namespace.namespace_fd)
            elif self._bridge is None:
                raise Unavailable("the default bridge network is disabled")
            else:
                endpoint = self._attach_bridge(container_id, request, namespace, self._bridge)
        except BaseException:
            namespace.close()
            raise
        self._namespaces[container_id] = namespace.namespace_fd
        RouteSocket(namespace.rtnetlink_socket_fd).close()  # it would keep the namespace alive
        return endpoint

    def _check_detached(self, container_id: str) -> None:
        if self._store.endpoint(container_id) is not None:
            raise Conflict(f"container {container_id} is already attached to a network")

    def _record_only(self, container_id: str, request: EndpointRequest, namespace_fd: int | None) -> Endpoint:
        network = self._network(request.mode)
        record = EndpointRecord(
            container_id=container_id,
            endpoint_id=new_id(),
            network=network.name,
            network_id=network.network_id,
            container_name=request.container_name,
        )
        with self._db.transaction(durable=False) as tx:
            self._store.add_endpoint(tx, record)
        return Endpoint(record=record, namespace_fd=namespace_fd)

    def _attach_bridge(self, container_id: str, request: EndpointRequest, namespace: Netns, to: Link) -> Endpoint:
        endpoint_id = new_id()
        with ExitStack() as undo:
            bindings = self._reserve_ports(endpoint_id, request)
            undo.callback(self._host_ports.release, bindings)
            record = self._record_endpoint(container_id, endpoint_id, request, bindings)
            undo.callback(self._store.remove_endpoint, record)
            undo.callback(self._leaving.watch_nowait)
            faults.point("network.attach.recorded")
            endpoint_links.connect(
                self._route, record, namespace, to, mtu=self._settings.mtu, isolated=not self._settings.icc
            )
            faults.point("network.attach.connected")
            if bindings and self._table is not None:
                self._table.publish(record)
                self._forget_flows_nowait(record)
            undo.pop_all()
        return Endpoint(record=record, namespace_fd=namespace.namespace_fd)

    def _forget_flows_nowait(self, record: EndpointRecord) -> None:
        ports = [port for port in published(record) if port.protocol == "udp"]
        if ports:
            future = asyncio.get_running_loop().run_in_executor(None, flows.forget_misled_datagrams, ports)
            self._forgetting.add(future)
            future.add_done_callback(self._forgetting.discard)

    def _reserve_ports(self, endpoint_id: str, request: EndpointRequest) -> tuple[PortBinding, ...]:
        if not request.ports:
            return ()
        if self._table is None:
            raise Unsupported("publishing ports without the engine's packet filter (--iptables=false)")
        try:
            return self._host_ports.reserve(request.ports)
        except ResourceExhausted as error:
            raise ResourceExhausted(
                "driver failed programming external connectivity on endpoint "
                f"{request.container_name} ({endpoint_id}): {error}"
            ) from error

    def _record_endpoint(
        self, container_id: str, endpoint_id: str, request: EndpointRequest, bindings: tuple[PortBinding, ...]
    ) -> EndpointRecord:
        network = self._bridge_record()
        if self._addresses is None:
            raise Internal("the network room has not been started")
        self._leaving.collect()
        link = endpoint_links.name_of(endpoint_id)
        with self._db.transaction(durable=False) as tx:
            address = self._addresses.take(tx, endpoint_id, link, f"{network.name} ({network.network_id})")
            record = EndpointRecord(
                container_id=container_id,
                endpoint_id=endpoint_id,
                network=network.name,
                network_id=network.network_id,
                container_name=request.container_name,
                link=link,
                ip=str(address),
                prefix=self._interface.network.prefixlen,
                gateway=str(self._interface.ip),
                mac=request.mac or bridge.mac_of(address),
                ports=bindings,
            )
            self._store.add_endpoint(tx, record)
        return record

    async def release(self, container_id: str) -> None:
        """Takes the container off its network; nothing to do is fine. Its processes should be gone by now."""
        record = self._store.endpoint(container_id)
        if record is not None:
            if record.ports and self._table is not None and self._bridge is not None:
                self._table.unpublish(record)
                faults.point("network.release.unpublished")
            self._host_ports.release(record.ports)
            self._store.remove_endpoint(record)
            faults.point("network.release.forgotten")
        self._drop_namespace(container_id)
        if record is not None and record.link:
            self._leaving.watch_nowait()

    def _drop_namespace(self, container_id: str) -> None:
        fd = self._namespaces.pop(container_id, None)
        if fd is not None:
            os.close(fd)

    def _network(self, name: str) -> NetworkRecord:
        record = self._store.network(name)
        if record is None:
            raise NotFound(f"network {name} not found")
        return record

    def _bridge_record(self) -> NetworkRecord:
        return self._network(BRIDGE)

    def _has_bridge_endpoints(self) -> bool:
        return any(record.network == BRIDGE for record in self._store.endpoints())

    def _hold_again(self, record: EndpointRecord) -> None:
        """Holds the ports that an earlier process of this engine chose; who took one meanwhile waits in vain."""
        for binding in record.ports:
            try:
                self._host_ports.hold(binding)
            except ResourceExhausted as error:
                _log.warning("container %s keeps its port, but: %s", record.container_id, error)
