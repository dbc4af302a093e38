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

from tare.errors import InvalidArgument
from tare.network.records import (
    AddressOptions,
    Endpoint,
    EndpointRequest,
    NetworkRequest,
    NetworkSettings,
    PortRequest,
)
from tare.values.ids import new_id

ROUTED = {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}


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


TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"


def test_containers_own_addresses_are_reached_from_trusted_links_only(engine: Engine, world: Topology) -> None:
    """Although the router sends packets for both networks to the host: the published ports of the one that trusts the
    link they come from, by true addresses, and nothing else of it; nothing at all of the other one, published or not.
    Of two host ports that lead to the same one may go, and with the last one the way is shut."""

    async def scenario() -> None:
        async with engine:
            boxes = []
            for number, trusts in ((7, "lan9:wan0"), (8, "lan9:wan1")):
                v4, v6 = f"10.{number}.0.0/24", f"fd00:{number}::/64"
                world.router("route", "add", v4, "via", HOST_WAN)
                world.router("route", "add", v6, "via", HOST_WAN6)
                addresses = (AddressOptions(subnet=v4), AddressOptions(subnet=v6))
                request = NetworkRequest(name=f"n{number}", addresses=addresses, ipv6=True, options={TRUSTED: trusts})
                await engine.network.create(request)
                ports = tuple(PortRequest(80, host_ip="127.0.0.1", host_port=8000 + 10 * number + n) for n in (0, 1))
                ports += (PortRequest(80, host_ip="::1", host_port=8000 + 10 * number),)
                wish = EndpointRequest(mode=f"n{number}", container_name="box", ports=ports)
                boxes.append(await engine.network.attach(new_id(), wish))
            open_box, shut_box = boxes
            with telling(open_box), telling(open_box, 81), telling(shut_box):
                assert dial(world.client_fd, open_box.ip, 80) == CLIENT
                assert dial(open_box.namespace_fd, open_box.gateway, 80) == "ConnectionRefusedError"
                assert not is_reachable(world.client_fd, open_box.ip, 81)
                assert not is_reachable(world.client_fd, shut_box.ip, 80)
                assert not is_reachable(world.client_fd, shut_box.record.ip6, 80)
                await engine.network.restore({box.record.container_id for box in boxes})
                assert dial(world.client_fd, open_box.ip, 80) == CLIENT
                container_id = open_box.record.container_id
                engine.network.unpublish(container_id, lambda port: port.host_port == 8071)
                assert dial(world.client_fd, open_box.ip, 80) == CLIENT
                engine.network.unpublish(container_id, lambda port: port.host_ip == "127.0.0.1")
                assert not is_reachable(world.client_fd, open_box.ip, 80)
            with listen(open_box.namespace_fd, 80, address="::") as server:
                assert talk(world.client_fd, open_box.record.ip6, 80, server) == CLIENT6

    asyncio.run(scenario())


def test_trusted_links_obey_publish_allow(host: None, world: Topology, tmp_path: Path) -> None:
    """Who may not reach published ports at all doesn't by a trusted link, either."""
    world.router("route", "add", "10.7.0.0/24", "via", HOST_WAN)

    async def scenario(allow: str, reached: bool) -> None:
        settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", publish_allow=(allow,))
        path = tmp_path / str(reached)
        path.mkdir()
        async with Engine(path, settings) as engine:
            addresses = (AddressOptions(subnet="10.7.0.0/24"),)
            await engine.network.create(NetworkRequest(name="own", addresses=addresses, options={TRUSTED: "wan0"}))
            wish = EndpointRequest(mode="own", container_name="box", ports=(PortRequest(80, host_port=8080),))
            box = await engine.network.attach(new_id(), wish)
            with listen(box.namespace_fd, 80):
                assert is_reachable(world.client_fd, box.ip, 80, expected=reached) == reached

    asyncio.run(scenario("198.51.100.0/24", False))
    asyncio.run(scenario("203.0.113.0/24", True))


def test_a_trusted_link_has_a_name(engine: Engine) -> None:
    """What no link can be called is refused."""

    async def scenario() -> None:
        async with engine:
            with pytest.raises(InvalidArgument, match="invalid interface name: 'a/b'"):
                await engine.network.create(NetworkRequest(name="own", options={TRUSTED: "eth0:a/b"}))

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
