"""The network room's front: an engine's networks, and what their containers have in them.

It must never fork, enter a namespace or wait for a link's deletion on the path of a start or an end. What containers
have in the kernel bears their id (link alias), so that clean-up after a crash reads the kernel and the database, not
memory. How an endpoint comes and goes stands in `endpoints.py`.

    create  record (unsettled) → bridge, leases → record settled → table        after a crash an unsettled network
    remove  record (unsettled) → table → links → leases and record gone         is taken away, wherever it was going
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Network

import msgspec

from tare import faults
from tare.errors import Forbidden, TareError, Unavailable
from tare.kernel.netlink_route import RouteSocket
from tare.network import bridge, config_networks, ipam, outgoing
from tare.network.bridges import Bridges
from tare.network.defaults import ensure_networks, reached_subnets
from tare.network.doors import Doors
from tare.network.egress_log import Denied
from tare.network.endpoint_leases import asked_addresses
from tare.network.endpoints import Endpoints
from tare.network.host_ports import HostPorts
from tare.network.host_resolvers import HostResolvers
from tare.network.leaving import Leaving
from tare.network.names import Names
from tare.network.namespace_pool import NamespacePool
from tare.network.publishing import Publishing
from tare.network.rates import Rate, check_kernel
from tare.network.records import (
    BRIDGE,
    Endpoint,
    EndpointRecord,
    EndpointRequest,
    NetworkRecord,
    NetworkRequest,
    NetworkSettings,
    PortBinding,
    PortRequest,
)
from tare.network.rule_listing import ListedTable
from tare.network.store import NetworkStore
from tare.network.table import HOOK_INPUT, Table
from tare.network.table_watch import TableWatch
from tare.network.user_networks import EGRESS, make_record
from tare.storage.database import Database

_log = logging.getLogger(__name__)


class Network:
    """One engine's networks. All methods run in the engine's event loop."""

    def __init__(self, db: Database, settings: NetworkSettings, doors: Doors) -> None:
        bridge.check_name(settings.bridge_name)
        self._db = db
        self._settings = settings
        self._store = NetworkStore(db)
        self._uplink = doors.uplink
        self._pool = NamespacePool(doors.make_netns, settings.warm_namespaces)
        self._host_ports = HostPorts(settings.default_bind_address, doors.uplink)
        self._route = RouteSocket()
        direct = settings.allow_direct_routing
        self._table = (
            Table(settings.table, self._store, settings.publish_allow, direct=direct) if settings.firewall else None
        )
        self._watch: TableWatch | None = None
        self._leaving = Leaving(db, self._route)
        self._bridges = Bridges(db, self._route, self._leaving, publishes=settings.firewall)
        self._publishing = Publishing(self._store, self._host_ports, self._table, self._bridges, self._route)
        self._names = Names(self._store, HostResolvers(settings.host_resolv_conf, doors.uplink))
        if self._table is not None:
            self._names.learned = self._table.learn
        self._changing = asyncio.Lock()
        self._endpoints = Endpoints(
            db,
            self._store,
            self._bridges,
            self._publishing,
            self._leaving,
            self._pool,
            self._route,
            doors.open_inside,
            self._names,
            self._table.guard if self._table is not None else None,
        )

    # ── the engine's life ────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Makes or repairs networks, bridges and table; ports of known endpoints stay published throughout."""
        self._store.migrate()
        await self._uplink.start()
        ensure_networks(self._store, self._settings, self._route, self._uplink.reached())
        for record in self._store.networks():
            if record.unsettled:
                await self._discard(record)
        self.repair()
        if self._table is not None and self._watch is None and list(self._bridges):
            self._watch = TableWatch(self._table)
        self._pool.refill_nowait()

    def repair(self) -> None:
        """Puts forwarding, bridges and table right, whatever became of them; running connections go on."""
        records = [record for record in self.networks() if record.has_links]
        if not records:
            return
        self._forward(records)
        for record in records:
            try:
                self._bridges.ensure(record)
            except TareError as error:
                if record.is_default:
                    raise
                _log.error("network %s has no link on the host: %s", record.name, error)
        for endpoint in self._store.endpoints():
            self._bridges.plug_in(endpoint)
        if self._table is not None:
            self._table.rebuild_all()

    def _forward(self, records: Iterable[NetworkRecord]) -> None:
        if not self._settings.ip_forward:
            return
        bridges = [record for record in records if record.driver == BRIDGE]
        versions = {4: bool(bridges), 6: any(record.subnet6 for record in bridges)}
        for version, wanted in versions.items():
            if wanted and bridge.ensure_forwarding(version):
                _log.info("switched forwarding of IPv%d on", version)

    async def mend(self) -> list[str]:
        """Finds what somebody broke (bridges, links, rules), puts it right, and says what it was."""
        async with self._changing:
            found = [
                f"{'link' if record.is_stacked else 'bridge'} {record.parent_link or record.bridge_name} "
                f"of network {record.name}"
                for record in self.networks()
                if record.has_links and not self._bridges.is_whole(record)
            ]
            if self._table is not None:
                found += [f"table {table.family} {table.name}" for table in self._table.listing() if not table.whole]
            self.repair()
            for container_id in list(self._endpoints.sandboxes):
                for network in await self._endpoints.relink(container_id):
                    found.append(f"link of container {container_id[:12]} to network {network}")
            return found

    def rules(self) -> tuple[ListedTable, ...]:
        """The engine's packet filter as the kernel has it; nothing, if the engine writes none."""
        return self._table.listing() if self._table is not None else ()

    async def restore(self, live: Collection[str]) -> None:
        """Makes what is there agree with the containers that live: ids with a running process."""
        attached = set()
        for record in self._store.endpoints():
            if record.container_id in live:
                self._publishing.hold_again(record)
                self._publishing.listen_again(record)
                attached.add(record.network_id)
            else:
                await self._endpoints.release(record.container_id)
        with self._db.transaction(durable=False) as tx:
            ipam.leave_orphans(tx)
        faults.point("network.restore.leases")
        if self._table is not None and list(self._bridges):
            self._table.rebuild_all()
        for network in self._bridges:
            if network.record.network_id not in attached and not network.record.is_stacked and network.record.subnet:
                bridge.drop_other_addresses(self._route, network.link, network.record.interface)
            await self._bridges.delete_strays(network, frozenset(live))
        own = frozenset(record.network_id for record in self._store.networks())
        await self._leaving.delete_links(outgoing.strays(self._route, own, frozenset(live)))
        if self._leaving.collect():
            self._leaving.watch_nowait()

    async def wait_released(self) -> None:
        """Until the kernel has taken away what released endpoints had (shutdown, tests)."""
        await self._leaving.wait_gone()

    async def stop(self, *, remove: bool = False) -> None:
        """Lets go of everything but what live containers need. remove: of bridges and table too, if unused."""
        await self._pool.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        unused = remove and not any(record.link for record in self._store.endpoints())
        if unused and list(self._bridges):
            for network in self._bridges:
                await self._bridges.remove(network.record)
            if self._table is not None:
                self._table.remove()
        await self._leaving.close()
        await self._publishing.close()
        self._endpoints.close()
        self._route.close()
        if self._table is not None:
            self._table.close()
        await self._uplink.stop(remove=unused)

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────

    def networks(self) -> list[NetworkRecord]:
        return [
            record
            for record in self._store.networks()
            if not record.unsettled and (self._settings.enabled or record.name != BRIDGE)
        ]

    def endpoint(self, container_id: str) -> EndpointRecord | None:
        return self._store.endpoint(container_id)

    def endpoints_of(self, container_id: str) -> list[EndpointRecord]:
        """A container's endpoints, in the order in which it got them."""
        return self._store.endpoints_of(container_id)

    def endpoints(self) -> list[EndpointRecord]:
        return self._store.endpoints()

    def gateway(self) -> str:
        """The host's address on the default bridge (`host-gateway`); empty without a bridge."""
        return next((network.record.gateway for network in self._bridges if network.record.name == BRIDGE), "")

    def warnings(self) -> list[str]:
        """What on this host keeps containers from talking, or seems to guard what it doesn't."""
        weak = self._uplink.warnings() + ([] if self._bridges.rates_held else [outgoing.WARNING])
        if self._table is None:
            return weak
        found = weak + [
            f"table {table}, chain {chain} drops packets to this host unless it allows them; published ports are "
            "forwarded and don't meet it (moby#22054): say with --publish-allow who may reach them"
            for table, chain in self._table.foreign_drops(HOOK_INPUT)
            if not self._settings.publish_allow
        ]
        return found + [
            f"table {table}, chain {chain} drops forwarded packets unless a rule of its own accepts them: "
            f"allow {self._settings.bridge_name} there, or containers reach no other network"
            for table, chain in self._table.foreign_drops()
        ]

    # ── networks of the user's own ───────────────────────────────────────────────────────────────────────────────

    async def create(self, request: NetworkRequest) -> NetworkRecord:
        """A new network. Raises InvalidArgument, Conflict, Forbidden, Unsupported … with Docker's texts."""
        async with self._changing:
            return self._create(request)

    def _create(self, request: NetworkRequest) -> NetworkRecord:
        record = make_record(request, self._settings, self._store.networks(), self._reached)
        if record.config_only:
            self._store.put_network(record)
            return record
        self._store.put_network(msgspec.structs.replace(record, unsettled=True))
        faults.point("network.create.recorded")
        try:
            if self._settings.ip_forward:
                self._forward([record])
            self._bridges.ensure(record)
            faults.point("network.create.bridge")
            self._store.put_network(record)
            faults.point("network.create.settled")
            if self._table is not None:
                self._table.rebuild()
        except BaseException:
            self._bridges.remove_nowait(record)
            self._forget_network(record)
            raise
        self._names.forget()
        if self._table is not None and self._watch is None:
            self._watch = TableWatch(self._table)
        return record

    async def remove(self, network_id: str) -> None:
        """Removes a network that nobody is attached to. Raises Forbidden with Docker's text otherwise."""
        async with self._changing:
            record = self._endpoints.network(network_id)
            if record.is_default:
                raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
            if record.config_only:
                config_networks.check_unused(record, self._store.networks())
                self._forget_network(record)
                return
            inside = [item for item in self._store.endpoints() if item.network_id == network_id]
            if inside:
                who = " ".join(f'name:"{item.container_name}" id:"{item.endpoint_id[:12]}"' for item in inside)
                raise Forbidden(f"error while removing network: network {record.name} has active endpoints ({who})")
            record = msgspec.structs.replace(record, unsettled=True)
            self._store.put_network(record)
            faults.point("network.remove.recorded")
            if self._table is not None:
                self._table.rebuild()
            self._names.forget()
            await self._discard(record)

    async def _discard(self, record: NetworkRecord) -> None:
        """Takes away what there is of a network that is only being made or removed."""
        await self._bridges.remove(record)
        faults.point("network.remove.links")
        self._forget_network(record)

    def _forget_network(self, record: NetworkRecord) -> None:
        with self._db.transaction() as tx:
            for pool in filter(None, (record.subnet, record.subnet6)):
                ipam.forget_pool(tx, pool)
            self._store.remove_network(tx, record.network_id)

    def _reached(self) -> Iterable[IPv4Network]:
        return reached_subnets(self._route) + self._uplink.reached()

    # ── containers' endpoints ────────────────────────────────────────────────────────────────────────────────────

    async def attach(
        self, container_id: str, *requests: EndpointRequest, id_maps: tuple[str, str] | None = None
    ) -> Endpoint:
        """Gives a container that starts its place in its networks; on failure nothing of it is left."""
        if not self._settings.enabled and any(request.mode == BRIDGE for request in requests):
            raise Unavailable("the default bridge network is disabled")
        return await self._endpoints.attach(container_id, *requests, id_maps=id_maps)

    async def resume(self, container_id: str, pid: int) -> None:
        """Takes up a live container of an earlier process of this engine: its namespace, its server of names."""
        await self._endpoints.resume(container_id, pid)

    async def release(self, container_id: str) -> None:
        """Takes the container off its networks; nothing to do is fine. Its processes should be gone by now."""
        await self._endpoints.release(container_id)

    async def connect(self, container_id: str, request: EndpointRequest) -> EndpointRecord:
        """Puts a live container into one more network. Raises Conflict if it isn't live."""
        return await self._endpoints.connect(container_id, request)

    async def disconnect(self, container_id: str, network_id: str) -> None:
        """Takes a live container off a network; one that isn't on it is left alone."""
        await self._endpoints.disconnect(container_id, network_id)

    def publish(self, container_id: str, ports: tuple[PortRequest, ...]) -> None:
        """Publishes more ports of a live container; all or none."""
        self._endpoints.publish(container_id, ports)

    def unpublish(self, container_id: str, chosen: Callable[[PortBinding], bool]) -> int:
        """Takes back published ports; connections that are open go on. Returns how many it were."""
        return self._endpoints.unpublish(container_id, chosen)

    async def set_rate(self, container_id: str, network_id: str, rate: Rate | None) -> None:
        """Makes a live container so fast on a network from now on (None: as fast as it can)."""
        await self._endpoints.set_rate(container_id, network_id, rate)

    def check_rate(self, rate: Rate | None) -> None:
        """Raises Unsupported for a speed or a delay that this kernel can't give."""
        check_kernel(self._route, rate)

    def check_egress(self, network: str, egress: str) -> None:
        """Raises InvalidArgument, Unsupported for a policy that a container can't be held to on a network (name, id).

        A network that isn't there, or has no links, is no reason.
        """
        for record in self.networks():
            if network in (record.name, record.network_id) and record.has_links:
                self._publishing.check_policies(record, egress)

    def check_addresses(self, network: str, request: EndpointRequest) -> None:
        """Raises InvalidArgument, with Docker's texts, for an asked address that a network (name, id) can't give.

        A network that isn't there is no reason.
        """
        for record in self.networks():
            to = self._bridges.get(record.network_id) if network in (record.name, record.network_id) else None
            if to is not None:
                asked_addresses(record, to, request)

    def set_egress(self, container_id: str, egress: str) -> None:
        """Holds a live container to another egress policy from now on, its open connections too."""
        self._endpoints.set_egress(container_id, egress)

    async def set_network_egress(self, network_id: str, egress: str) -> NetworkRecord:
        """Holds all containers of a network to another policy from now on; raises before anything changed."""
        async with self._changing:
            record = self._endpoints.network(network_id)
            if not record.has_links:
                raise Forbidden(f"network {record.name} can't have an egress policy")
            options = {name: value for name, value in record.options.items() if name != EGRESS}
            if not record.is_default and egress:
                options[EGRESS] = egress
            changed = msgspec.structs.replace(record, egress=egress, options=options)
            inside = [item for item in self._store.endpoints() if item.network_id == network_id]
            self._publishing.check_policies(changed, "")
            for item in inside:
                self._publishing.check_bind(item, changed)
            stale = [msgspec.structs.replace(item, stale_names=True) for item in inside]
            self._store.put_network(changed, *stale)
            faults.point("network.update.recorded")
            self._bridges.ensure(changed)
            self._names.forget()
            for item in inside:
                self._publishing.unbind(item, always=True)
            return changed

    def on_denied(self, denied: Denied) -> None:
        """Who is told of what egress policies reject."""
        self._publishing.egress_log.denied = denied

    def rename(self, container_id: str, old: str, new: str) -> None:
        """A live container has another name from now on; its other names stay."""
        changed = []
        for record in self._store.endpoints_of(container_id):
            names = tuple(new if name == old else name for name in record.names)
            changed.append(msgspec.structs.replace(record, container_name=new, names=names))
        self._store.put_endpoint(*changed)
        self._names.forget()
