"""Across hosts and a router: what clients, neighbours and containers see of each other, by real packets."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from neighbour_host import dial, tell
from network_topology import CLIENT, CLIENT6, NEIGHBOUR, Topology
from network_world import DEADLINE_S, HOST_WAN, HOST_WAN6, Engine, client_socket, inside, is_reachable, listen, talk

from tare.network.records import AddressOptions, Endpoint, EndpointRequest, NetworkRequest, PortRequest
from tare.values.ids import new_id

ROUTED = {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}


@pytest.fixture
def world(host: None) -> Iterator[Topology]:
    made = Topology()
    yield made
    made.close()


@contextmanager
def telling(box: Endpoint, port: int = 80) -> Iterator[None]:
    """A server in a container that tells clients by which address it sees them."""
    server = listen(box.namespace_fd, port)
    thread = threading.Thread(target=tell, args=(server,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


def test_a_client_behind_a_router_is_seen_by_its_address(engine: Engine, world: Topology) -> None:
    """Over IPv4 and IPv6: no proxy, no masquerading on the way in."""

    async def scenario() -> None:
        async with engine:
            v6 = AddressOptions(subnet="fd00:7::/64")
            await engine.network.create(NetworkRequest(name="own", ipv6=True, addresses=(v6,)))
            request = EndpointRequest(mode="own", container_name="box", ports=(PortRequest(80, host_port=8080),))
            box = await engine.network.attach(new_id(), request)
            with listen(box.namespace_fd, 80) as server:
                assert talk(world.client_fd, HOST_WAN, 8080, server) == CLIENT
            with listen(box.namespace_fd, 80, address="::") as server:
                assert talk(world.client_fd, HOST_WAN6, 8080, server) == CLIENT6

    asyncio.run(scenario())


def test_containers_of_two_hosts_meet_at_published_ports(engine: Engine, world: Topology, tmp_path: Path) -> None:
    """Each sees the other's host, although both hosts' containers have the same addresses; a container reaches its own
    host's published port by the host's outer address, too (hairpin), and a neighbour's container by no other address,
    even if the router sends packets for it there."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, host_port=8080))
            with world.neighbour(tmp_path / "neighbour") as neighbour, telling(box):
                assert neighbour.container == box.ip == "172.30.0.2"
                reach = asyncio.to_thread
                assert await reach(neighbour.dial, HOST_WAN, 8080) == NEIGHBOUR
                assert await reach(dial, box.namespace_fd, NEIGHBOUR, 8080) == HOST_WAN
                assert await reach(neighbour.dial, NEIGHBOUR, 8080) == "172.30.0.1"
                assert await reach(dial, box.namespace_fd, HOST_WAN, 8080) == box.gateway
                assert await reach(dial, world.client_fd, NEIGHBOUR, 8080) == CLIENT
                world.router("route", "add", "172.30.0.0/24", "via", NEIGHBOUR)
                assert not await reach(is_reachable, world.client_fd, "172.30.0.2", 80)

    asyncio.run(scenario())


def test_routed_networks_are_part_of_the_routers_world(engine: Engine, world: Topology, tmp_path: Path) -> None:
    """With a route at the router a client and another host's container reach a routed network's container at its own
    address, at what is published; it sees the client, and is seen, by true addresses."""

    async def scenario() -> None:
        async with engine:
            world.router("route", "add", "10.7.0.0/24", "via", HOST_WAN)
            addresses = (AddressOptions(subnet="10.7.0.0/24"),)
            await engine.network.create(NetworkRequest(name="own", addresses=addresses, options=ROUTED))
            request = EndpointRequest(mode="own", container_name="box", ports=(PortRequest(80),))
            box = await engine.network.attach(new_id(), request)
            with world.neighbour(tmp_path / "neighbour") as neighbour, telling(box), telling(box, 81):
                reach = asyncio.to_thread
                assert await reach(dial, world.client_fd, box.ip, 80) == CLIENT
                assert await reach(neighbour.dial, box.ip, 80) == NEIGHBOUR
                assert await reach(neighbour.dial, box.ip, 81) == "TimeoutError"
                assert await reach(dial, box.namespace_fd, NEIGHBOUR, 8080) == box.ip

    asyncio.run(scenario())


def test_a_narrow_link_on_the_way_is_heard_of(engine: Engine, world: Topology) -> None:
    """The router's "too big" finds its way to the container behind the address translation: a large answer arrives."""

    async def scenario() -> None:
        async with engine:
            world.router("link", "set", "client", "mtu", "1280")
            box = await engine.attach(PortRequest(80, host_port=8080))
            data = bytes(300_000)
            with listen(box.namespace_fd, 80) as server, client_socket(world.client_fd) as client:
                client.connect((HOST_WAN, 8080))
                accepted, _ = server.accept()
                with accepted:
                    sender = threading.Thread(target=accepted.sendall, args=(data,))
                    sender.start()
                    left = len(data)
                    while left:
                        left -= len(client.recv(min(left, 65_536)))
                    sender.join()

    asyncio.run(scenario())


def test_sctp_is_published(engine: Engine, world: Topology) -> None:
    """An SCTP packet for a published port arrives at the container's, from the client's address, and the answer comes
    from the published port: raw packets, as this kernel may have no SCTP of its own."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, "sctp", "", 8132))
            with raw_sctp(world.client_fd) as client, raw_sctp(box.namespace_fd) as server:
                client.sendto(sctp_init(4000, 8132), (HOST_WAN, 0))
                packet, seen = server.recvfrom(2048)
                assert seen[0] == CLIENT and ports_of(packet) == (4000, 80)
                server.sendto(sctp_init(80, 4000, kind=2, tag=7), (CLIENT, 0))
                packet, seen = client.recvfrom(2048)
                assert seen[0] == HOST_WAN and ports_of(packet) == (8132, 4000)

    asyncio.run(scenario())


def raw_sctp(namespace_fd: int | None) -> socket.socket:
    assert namespace_fd is not None
    with inside(namespace_fd):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    raw.settimeout(DEADLINE_S)
    return raw


def ports_of(packet: bytes) -> tuple[int, int]:
    head = (packet[0] & 15) * 4
    source, destination = struct.unpack_from(">HH", packet, head)
    return int(source), int(destination)


def sctp_init(source: int, destination: int, kind: int = 1, tag: int = 0) -> bytes:
    """INIT (1) or INIT ACK (2, with a cookie) of RFC 9260, section 3.3."""
    cookie = struct.pack(">HHI", 7, 8, 1) if kind == 2 else b""
    chunk = struct.pack(">BBHIIHHI", kind, 0, 20 + len(cookie), 7, 65_536, 1, 1, 1) + cookie
    head = struct.pack(">HHI", source, destination, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
