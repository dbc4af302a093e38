"""A host of the tests' own: a private network namespace as the host, others as containers and as the outside world.

Everything happens in one thread, which moves into a namespace to open a socket there; the socket stays behind in it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tare.kernel import netlink_route as route
from tare.kernel import netns
from tare.kernel.namespaces import CLONE_NEWNET, open_namespace, setns, unshare
from tare.kernel.netlink_route import RouteSocket
from tare.kernel.nftables import NftablesSocket
from tare.network.doors import Doors
from tare.network.records import Endpoint, EndpointRequest, NetworkSettings, PortRequest
from tare.network.rules import PUBLISHED, PUBLISHED_ANY
from tare.network.service import Network
from tare.storage.database import Database
from tare.values.ids import new_id

HOST_WAN = "198.51.100.1"
OUTSIDE = "198.51.100.2"
HOST_WAN6 = "2001:db8:1::1"
OUTSIDE6 = "2001:db8:1::2"
DEADLINE_S = 20.0


@contextmanager
def private_host() -> Iterator[None]:
    """Moves this thread into a fresh network namespace with a loopback, and back."""
    home_fd = open_namespace("/proc/thread-self/ns/net")
    try:
        unshare(CLONE_NEWNET)
        try:
            with RouteSocket() as sock:
                sock.execute((route.set_up("lo"),))
            yield
        finally:
            setns(home_fd, CLONE_NEWNET)
    finally:
        os.close(home_fd)


@contextmanager
def inside(namespace_fd: int) -> Iterator[None]:
    """Runs the block in another network namespace."""
    home_fd = open_namespace("/proc/thread-self/ns/net")
    try:
        setns(namespace_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home_fd, CLONE_NEWNET)
    finally:
        os.close(home_fd)


async def make_netns() -> netns.Netns:
    return netns.create()


async def open_inside(namespace_fd: int, resolver_address: str, ipv6: bool = False) -> list[int]:
    return netns.open_inside(namespace_fd, resolver_address, ipv6)


class Outside:
    """Another machine on the host's own network."""

    def __init__(self) -> None:
        self._netns = netns.create(ipv6=True)
        self.namespace_fd = self._netns.namespace_fd
        with RouteSocket() as sock:
            peer = route.VethPeer("eth0", "02:00:00:00:00:02", self.namespace_fd)
            sock.execute((route.new_veth("wan0", 1500, peer), route.set_up("wan0")))
            wan = sock.link("wan0")
            assert wan is not None
            for text in (f"{HOST_WAN}/24", f"{HOST_WAN6}/64"):
                sock.execute((route.new_address(wan.ifindex, ipaddress.ip_interface(text)),))
        there = RouteSocket(self._netns.rtnetlink_socket_fd)
        link = there.link("eth0")
        assert link is not None
        there.execute(
            (
                route.new_address(link.ifindex, ipaddress.ip_interface(f"{OUTSIDE}/24")),
                route.new_address(link.ifindex, ipaddress.ip_interface(f"{OUTSIDE6}/64")),
                route.set_up_index(link.ifindex),
            )
        )
        there.detach()

    def route_through_host(self) -> None:
        """As a neighbour would who tries to reach containers directly."""
        there = RouteSocket(self._netns.rtnetlink_socket_fd)
        there.execute([route.new_default_route(ipaddress.ip_address(text)) for text in (HOST_WAN, HOST_WAN6)])
        there.detach()

    def close(self) -> None:
        self._netns.close()


class Engine:
    """A network room over a database of its own, and containers to put into it."""

    def __init__(self, path: Path, settings: NetworkSettings | None = None, doors: Doors | None = None) -> None:
        self.settings = settings or NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24")
        self.db = Database(path / "state.db")
        self.network = Network(self.db, self.settings, doors or Doors(make_netns, open_inside))

    async def __aenter__(self) -> Engine:
        await self.network.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        for record in self.network.endpoints():
            await self.network.release(record.container_id)
        await asyncio.wait_for(self.network.wait_released(), DEADLINE_S)
        await self.network.stop(remove=True)
        self.db.close()

    def crash(self) -> None:
        """What `kill -9` of the daemon leaves: its descriptors are closed, nothing else happens."""
        network = self.network
        for sandbox in network._endpoints.sandboxes.values():
            os.close(sandbox.namespace_fd)
            if sandbox.server is not None:
                sandbox.server._udp.close()
                sandbox.server._tcp.close()
        while network._pool._ready:
            network._pool._ready.pop().close()
        network._pool._closed = True
        relays = network._publishing._relays
        with suppress(RuntimeError):  # no loop any more: nobody reads
            relays.close(list(relays._relays))
        for task in relays._connections:
            task.cancel()
        network._host_ports.close()
        network._route.close()
        assert network._table is not None
        network._table.close()
        assert network._watch is not None
        network._watch._news.close()
        self.db.close()

    async def attach(self, *ports: PortRequest, name: str = "box") -> Endpoint:
        return await self.network.attach(new_id(), EndpointRequest(container_name=name, ports=ports))

    def published(self) -> int:
        """How many map elements there are."""
        with NftablesSocket() as nft:
            return sum(len(nft.elements(self.settings.table, name)) for name in (PUBLISHED, PUBLISHED_ANY))

    def ports_of_bridge(self) -> list[str]:
        with RouteSocket() as sock:
            bridge = sock.link(self.settings.bridge_name)
            assert bridge is not None
            return [link.name for link in sock.links(bridge.ifindex)]

    def bridge_addresses(self) -> list[str]:
        with RouteSocket() as sock:
            bridge = sock.link(self.settings.bridge_name)
            assert bridge is not None
            return [str(address.interface) for address in sock.addresses(bridge.ifindex)]

    def addresses_inside(self, endpoint: Endpoint) -> list[str]:
        assert endpoint.namespace_fd is not None
        with inside(endpoint.namespace_fd), RouteSocket() as sock:
            return [str(address.interface) for address in sock.addresses()]


def listen(
    namespace_fd: int | None, port: int, kind: int = socket.SOCK_STREAM, address: str = "0.0.0.0"
) -> socket.socket:
    """A server's socket in a namespace (None: the host's)."""
    with inside(namespace_fd) if namespace_fd is not None else _here():
        server = socket.socket(family_of(address), kind)
        server.settimeout(DEADLINE_S)
        if ":" in address:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        return server


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def client_socket(
    namespace_fd: int | None, kind: int = socket.SOCK_STREAM, timeout: float = DEADLINE_S, to: str = ""
) -> socket.socket:
    with inside(namespace_fd) if namespace_fd is not None else _here():
        client = socket.socket(family_of(to), kind)
        client.settimeout(timeout)
        return client


def talk(namespace_fd: int | None, address: str, port: int, server: socket.socket) -> str:
    """Connects from a namespace, sends a line each way; returns the client's address as the server saw it."""
    with client_socket(namespace_fd, to=address) as client:
        client.connect((address, port))
        accepted, seen = server.accept()
        with accepted:
            client.sendall(b"ping")
            assert accepted.recv(16) == b"ping"
            accepted.sendall(b"pong")
            assert client.recv(16) == b"pong"
        return str(seen[0])


def talk_udp(namespace_fd: int | None, address: str, port: int, server: socket.socket) -> str:
    with client_socket(namespace_fd, socket.SOCK_DGRAM, to=address) as client:
        client.connect((address, port))
        client.send(b"ping")
        data, seen = server.recvfrom(16)
        assert data == b"ping"
        server.sendto(b"pong", seen)
        assert client.recv(16) == b"pong"
        return str(seen[0])


def is_reachable(
    namespace_fd: int | None, address: str, port: int, timeout: float = 0.3, *, expected: bool = False
) -> bool:
    """Whether a TCP connection comes about. A drop shows only by silence, for all of `timeout`.

    expected: that it does, so however long it takes.
    """
    timeout = DEADLINE_S if expected else timeout
    with client_socket(namespace_fd, timeout=timeout, to=address) as client:
        try:
            client.connect((address, port))
        except OSError:
            return False
        return True


@contextmanager
def _here() -> Iterator[None]:
    yield


def is_silent(server: socket.socket, timeout: float = 0.3) -> bool:
    """Whether nothing arrives. Silence shows only by waiting."""
    server.settimeout(timeout)
    try:
        server.recv(16)
    except TimeoutError:
        return True
    return False


def link_mac(name: str) -> bytes:
    with RouteSocket() as sock:
        link = sock.link(name)
    assert link is not None
    return bytes.fromhex(link.mac.replace(":", ""))


def frame_socket(namespace_fd: int | None, link: str) -> socket.socket:
    """A socket in a namespace that sends whole Ethernet frames."""
    assert namespace_fd is not None
    with inside(namespace_fd):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind((link, 0))
        return raw


def udp_frame(
    mac: bytes, source: str, destination: str, port: int, own_mac: bytes = b"\x02\x00\x00\x00\x00\x99"
) -> bytes:
    """An Ethernet frame with a UDP datagram that the kernel's own routing would never send."""
    payload = b"frame"
    udp = struct.pack(">HHHH", 4000, port, 8 + len(payload), 0) + payload
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0) + ends
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return mac + own_mac + b"\x08\x00" + head + udp


def mac_bytes(endpoint: Endpoint) -> bytes:
    return bytes.fromhex(endpoint.mac.replace(":", ""))


def delete_link(name: str) -> None:
    with RouteSocket() as sock:
        sock.execute((route.delete_link(name),))
