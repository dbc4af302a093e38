"""IPv6 beside IPv4: addresses, names, ways in and out, isolation and policies, with real packets."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from pathlib import Path

import pytest
from dnslib import DNSRecord
from network_world import (
    HOST_WAN,
    HOST_WAN6,
    OUTSIDE,
    OUTSIDE6,
    Engine,
    Outside,
    client_socket,
    delete_link,
    frame_socket,
    inside,
    is_reachable,
    listen,
    mac_bytes,
    talk,
    talk_udp,
)

from tare.errors import Forbidden, InvalidArgument, ResourceExhausted
from tare.kernel.netlink_route import RouteSocket
from tare.network.ipam import AddressPool
from tare.network.port_guard import link_local_of
from tare.network.records import (
    AddressOptions,
    Endpoint,
    EndpointRequest,
    NetworkRecord,
    NetworkRequest,
    NetworkSettings,
    PortBinding,
    PortRequest,
)
from tare.network.store import NetworkStore
from tare.storage.database import Database
from tare.values.ids import new_id

SUBNET6 = "fd00:7::/64"


async def make(engine: Engine, name: str = "own", subnet6: str = SUBNET6, **wishes: object) -> NetworkRecord:
    addresses = (AddressOptions(subnet=subnet6),) if subnet6 else ()
    return await engine.network.create(NetworkRequest(name=name, ipv6=True, addresses=addresses, **wishes))  # type: ignore[arg-type]


async def join(engine: Engine, *networks: str, **wishes: object) -> Endpoint:
    requests = [EndpointRequest(mode=name, container_name="box", names=("box",), **wishes) for name in networks]  # type: ignore[arg-type]
    return await engine.network.attach(new_id(), *requests)


def default_gateways(box: Endpoint) -> set[str]:
    assert box.namespace_fd is not None
    with inside(box.namespace_fd), RouteSocket() as sock:
        routes = [*sock.routes(), *sock.routes(socket.AF_INET6)]
        return {str(route.gateway) for route in routes if route.destination is None}


def addresses6(box: Endpoint) -> set[str]:
    """Global IPv6 addresses in a container."""
    assert box.namespace_fd is not None
    with inside(box.namespace_fd), RouteSocket() as sock:
        found = [item.interface for item in sock.addresses() if item.interface.version == 6]
        return {str(item) for item in found if not (item.is_loopback or item.is_link_local)}


def test_addresses_and_ways(engine: Engine, outside: Outside) -> None:
    """A container has an address and a default route of each kind; it reaches its neighbour, the host and, behind the
    host's address, the outside; nothing outside reaches it."""

    async def scenario() -> None:
        async with engine:
            made = await make(engine)
            assert (made.subnet6, made.gateway6) == (SUBNET6, "fd00:7::1")
            one, two = await join(engine, "own"), await join(engine, "own")
            assert (one.record.ip6, one.record.prefix6, one.record.gateway6) == ("fd00:7::2", 64, "fd00:7::1")
            assert two.record.ip6 == "fd00:7::3"
            assert addresses6(one) == {"fd00:7::2/64"}
            assert default_gateways(one) == {made.gateway, "fd00:7::1"}
            with listen(two.namespace_fd, 80, address="::") as server:
                assert talk(one.namespace_fd, two.record.ip6, 80, server) == one.record.ip6
                assert talk(None, two.record.ip6, 80, server) == "fd00:7::1"
                outside.route_through_host()
                assert not is_reachable(outside.namespace_fd, two.record.ip6, 80)
            with listen(outside.namespace_fd, 80, address="::") as server:
                assert talk(one.namespace_fd, OUTSIDE6, 80, server) == HOST_WAN6
            with listen(None, 81, address="::") as server:
                assert talk(one.namespace_fd, "fd00:7::1", 81, server) == one.record.ip6

    asyncio.run(scenario())


def test_published_on_both_kinds_of_address(engine: Engine, outside: Outside) -> None:
    """-p without an address is on 0.0.0.0 and [::], and the client's address is kept; with an IPv6 address only there;
    from the host and from the container itself, too; nothing is left afterwards."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            ports = (PortRequest(80, host_port=8080), PortRequest(80, "tcp", HOST_WAN6, 8081), PortRequest(53, "udp"))
            box = await join(engine, "own", ports=ports)
            neighbour = await join(engine, "own")
            udp_port = box.ports[-1].host_port
            assert box.ports[:3] == (
                PortBinding(80, "tcp", "0.0.0.0", 8080),
                PortBinding(80, "tcp", "::", 8080),
                PortBinding(80, "tcp", HOST_WAN6, 8081),
            )
            assert box.ports[3:] == (
                PortBinding(53, "udp", "0.0.0.0", udp_port),
                PortBinding(53, "udp", "::", udp_port),
            )
            with listen(box.namespace_fd, 80, address="::") as server:
                assert talk(outside.namespace_fd, HOST_WAN6, 8080, server) == OUTSIDE6
                assert talk(outside.namespace_fd, HOST_WAN6, 8081, server) == OUTSIDE6
                assert talk(None, HOST_WAN6, 8080, server)
                assert talk(box.namespace_fd, HOST_WAN6, 8080, server)
                assert talk(neighbour.namespace_fd, HOST_WAN6, 8080, server)
                assert not is_reachable(outside.namespace_fd, HOST_WAN, 8081)
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
            with listen(box.namespace_fd, 53, socket.SOCK_DGRAM, "::") as server:
                assert talk_udp(outside.namespace_fd, HOST_WAN6, udp_port, server) == OUTSIDE6
            with pytest.raises(ResourceExhausted, match=r"Bind for \[::1\]:8080 failed: port is already allocated"):
                await join(engine, "own", ports=(PortRequest(80, "tcp", "::1", 8080),))
            await engine.network.release(box.record.container_id)
            assert engine.published() == 0
            with listen(None, 8080, address="::"):
                pass

    asyncio.run(scenario())


def test_networks_are_apart_and_internal_ones_shut(engine: Engine, outside: Outside) -> None:
    """From another network neither the container's address answers nor the bridge's; an internal one leads nowhere."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            await make(engine, "other", "fd00:8::/64")
            shut = await make(engine, "shut", "fd00:9::/64", internal=True)
            mine, theirs, inner = [await join(engine, name) for name in ("own", "other", "shut")]
            assert default_gateways(inner) == set() and shut.subnet6 == "fd00:9::/64"
            with listen(theirs.namespace_fd, 80, address="::"), listen(None, 81, address="::"):
                assert not is_reachable(mine.namespace_fd, theirs.record.ip6, 80)
                assert not is_reachable(mine.namespace_fd, "fd00:8::1", 81)
            with listen(outside.namespace_fd, 80, address="::"):
                assert not is_reachable(inner.namespace_fd, OUTSIDE6, 80)

    asyncio.run(scenario())


def neighbour_message(kind: int, source: str, target: str, own_mac: bytes, to: bytes, goal: str) -> bytes:
    """An ICMPv6 message of neighbour discovery (RFC 4861), as a frame."""
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(goal).packed
    body = struct.pack(">BBHI", kind, 0, 0, 0x20000000) + ipaddress.IPv6Address(target).packed + b"\x02\x01" + own_mac
    total = sum(struct.unpack(f">{(len(ends) + len(body)) // 2}H", ends + body)) + len(body) + 58
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    return to + own_mac + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + ends + body


def test_neighbours_can_not_be_forged(engine: Engine) -> None:
    """Another's source address, an advertisement for another's address and a router's advertisement go nowhere; one's
    own advertisement arrives."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            villain, victim, third = [await join(engine, "own") for _ in range(3)]
            own, to = mac_bytes(villain), mac_bytes(victim)
            mine, theirs = villain.record.ip6, third.record.ip6
            with (
                frame_socket(villain.namespace_fd, "eth0") as out,
                frame_socket(victim.namespace_fd, "eth0") as sniffer,
            ):
                sniffer.bind(("eth0", 3))
                sniffer.settimeout(0.5)
                goal = victim.record.ip6
                out.send(neighbour_message(136, mine, theirs, own, to, goal))
                out.send(neighbour_message(136, theirs, theirs, own, to, goal))
                out.send(neighbour_message(134, mine, mine, own, to, goal))
                good = neighbour_message(136, mine, mine, own, to, goal)
                out.send(good)
                found: list[bytes] = []
                while not found or found[-1] != good:
                    frame = sniffer.recv(2048)
                    if frame[6:12] == own and frame[:6] == to:
                        found.append(frame)
                assert found == [good]

    asyncio.run(scenario())


def test_names_have_addresses_of_both_kinds(engine: Engine) -> None:
    """AAAA and A, both by reverse look-up, and the host's names."""

    def ask(box: Endpoint, name: str, kind: str) -> list[str]:
        with client_socket(box.namespace_fd, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.11", 53))
            client.send(DNSRecord.question(name, kind).pack())
            return [str(record.rdata) for record in DNSRecord.parse(client.recv(512)).rr]

    async def scenario() -> None:
        async with engine:
            await make(engine)
            box = await join(engine, "own")
            for name, kind, wanted in (
                ("box", "AAAA", [box.record.ip6]),
                ("box", "A", [box.ip]),
                (ipaddress.ip_address(box.record.ip6).reverse_pointer, "PTR", ["box.own."]),
                (ipaddress.ip_address(box.ip).reverse_pointer, "PTR", ["box.own."]),
                ("host.docker.internal", "AAAA", ["fd00:7::1"]),
                ("host.docker.internal", "A", [box.gateway]),
            ):
                assert await asyncio.to_thread(ask, box, name, kind) == wanted

    asyncio.run(scenario())


def test_egress_policy_bounds_ipv6_too(engine: Engine, outside: Outside) -> None:
    """A policy names subnets of either kind; what it doesn't name is rejected, of either kind."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            with listen(outside.namespace_fd, 80, address="::") as server, listen(None, 81, address="::"):
                for egress, reaches in (
                    ("none", False),
                    (f"allow={OUTSIDE}", False),
                    ("allow=[2001:db8:1::2]:80", True),
                ):
                    box = await join(engine, "own", egress=egress)
                    assert is_reachable(box.namespace_fd, OUTSIDE6, 80, expected=reaches) == reaches
                    if reaches:
                        server.accept()[0].close()
                    assert not is_reachable(box.namespace_fd, "fd00:7::1", 81)

    asyncio.run(scenario())


def test_running_container_joins_and_leaves(engine: Engine) -> None:
    """A container without IPv6 gets it with a network that has it, and its link made anew has it again; on its other
    network it gets none."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            await engine.network.create(NetworkRequest(name="old"))
            box = await join(engine, "old")
            record = await engine.network.connect(
                box.record.container_id, EndpointRequest(mode="own", container_name="box", priority=5)
            )
            assert addresses6(box) == {f"{record.ip6}/64"}
            assert default_gateways(box) == {record.gateway, record.gateway6}
            delete_link(record.link)
            await engine.network.mend()
            assert addresses6(box) == {f"{record.ip6}/64"}
            other = await join(engine, "own")
            with listen(box.namespace_fd, 80, address="::") as server:
                assert talk(other.namespace_fd, record.ip6, 80, server) == other.record.ip6
            await engine.network.disconnect(box.record.container_id, record.network_id)
            assert addresses6(box) == set() and default_gateways(box) == {box.gateway}

    asyncio.run(scenario())


def test_static_addresses_and_large_subnets(engine: Engine) -> None:
    """--ip6 takes any address of the subnet, its upper half included; what is taken or outside is refused."""

    async def scenario() -> None:
        async with engine:
            await make(engine, subnet6="2001:db8::/48")
            far = "2001:db8:0:ffff:ffff::9"
            box = await join(engine, "own", ip6=far)
            assert addresses6(box) == {f"{far}/48"}
            with pytest.raises(Forbidden, match="Address already in use"):
                await join(engine, "own", ip6=far)
            with pytest.raises(InvalidArgument, match="no configured subnet contains IP address"):
                await join(engine, "own", ip6="2001:db9::9")
            with pytest.raises(InvalidArgument, match="invalid IPv6 address"):
                await join(engine, "own", ip6="10.0.0.9")
            await engine.network.release(box.record.container_id)
            assert addresses6(await join(engine, "own", ip6=far)) == {f"{far}/48"}
            await make(engine, "auto", "")
            with pytest.raises(InvalidArgument, match="user configured subnets"):
                await join(engine, "auto", ip6="fd00::9")

    asyncio.run(scenario())


def test_subnets_asked_for_and_made_up(engine: Engine) -> None:
    """Without a subnet a network gets a unique local one; a second of one kind, an overlap and a wrong gateway are
    refused; an IPv6 subnet of a network without IPv6 isn't heeded (as with Docker)."""

    async def scenario() -> None:
        async with engine:
            auto = await make(engine, "auto", "")
            assert ipaddress.IPv6Network(auto.subnet6).subnet_of(ipaddress.IPv6Network("fd00::/8"))
            await make(engine)
            with pytest.raises(Forbidden, match="Pool overlaps"):
                await make(engine, "again", "fd00:7::/72")
            two = (AddressOptions(subnet="fd00:1::/64"), AddressOptions(subnet="fd00:2::/64"))
            with pytest.raises(Forbidden, match="bridge driver doesn't support multiple subnets"):
                await engine.network.create(NetworkRequest(name="two", ipv6=True, addresses=two))
            wrong = (AddressOptions(subnet="fd00:3::/64", gateway="fd00:4::1"),)
            with pytest.raises(InvalidArgument, match="invalid gateway fd00:4::1"):
                await engine.network.create(NetworkRequest(name="wrong", ipv6=True, addresses=wrong))
            plain = await engine.network.create(
                NetworkRequest(name="plain", addresses=(AddressOptions(subnet="fd00:5::/64"),))
            )
            assert plain.subnet6 == "" and plain.subnet

    asyncio.run(scenario())


def test_default_network_with_ipv6(host: None, outside: Outside, tmp_path: Path) -> None:
    """tared --ipv6 --fixed-cidr-v6 gives the default network IPv6; without it again there is none."""

    async def scenario(*, ipv6: bool) -> None:
        settings = NetworkSettings(
            bridge_name="tn0", table="tn", subnet="172.30.0.0/24", ipv6=ipv6, subnet6="fd00:d::/64" if ipv6 else ""
        )
        async with Engine(tmp_path, settings) as engine:
            box = await engine.attach(PortRequest(80, host_port=8080))
            assert addresses6(box) == ({"fd00:d::2/64"} if ipv6 else set())
            if ipv6:
                with listen(box.namespace_fd, 80, address="::") as server:
                    assert talk(outside.namespace_fd, HOST_WAN6, 8080, server) == OUTSIDE6

    asyncio.run(scenario(ipv6=True))
    asyncio.run(scenario(ipv6=False))


def test_pool_is_used_up_and_begins_anew(tmp_path: Path) -> None:
    """A small subnet hands out all but its first address and the gateway, each once."""
    db = Database(tmp_path / "state.db")
    NetworkStore(db).migrate()
    pool = AddressPool(db, ipaddress.ip_interface("fd00::1/125"))
    pool.prepare()
    with db.transaction() as tx:
        given = [str(pool.take(tx, f"e{number}", f"l{number}", "own")) for number in range(6)]
        assert given == [f"fd00::{number}" for number in range(2, 8)]
        with pytest.raises(ResourceExhausted, match="no available IPv6 addresses"):
            pool.take(tx, "more", "more", "own")
    db.close()


def test_link_local_address_is_the_kernels(engine: Engine) -> None:
    """What the guard takes for a link's own address is what the kernel makes of the MAC."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            box = await join(engine, "own")
            assert box.namespace_fd is not None
            with inside(box.namespace_fd), RouteSocket() as sock:
                assert link_local_of(box.mac) in {item.interface.ip for item in sock.addresses()}

    asyncio.run(scenario())


def test_a_network_can_do_without_ipv4(engine: Engine, outside: Outside) -> None:
    """--ipv4=false: containers have IPv6 alone: each other by name, ways out and in, a published port on [::] only; one
    on an IPv4 address, or neither kind of addresses, is refused."""

    async def scenario() -> None:
        async with engine:
            await engine.network.create(NetworkRequest(name="six", ipv4=False, ipv6=True))
            box = await engine.network.attach(
                new_id(),
                EndpointRequest(
                    mode="six", container_name="box", names=("box",), ports=(PortRequest(80, host_port=8080),)
                ),
            )
            other = await engine.network.attach(new_id(), EndpointRequest(mode="six", container_name="other"))
            six = box.record.ip6
            assert (box.ip, box.gateway, [port.host_ip for port in box.ports]) == ("", "", ["::"])
            assert not any("." in text for text in engine.addresses_inside(box) if not text.startswith("127."))
            assert box.mac != other.mac and await engine.network.mend() == []
            with listen(box.namespace_fd, 80, address="::") as server:
                assert talk(other.namespace_fd, six, 80, server) == other.record.ip6
                assert talk(outside.namespace_fd, HOST_WAN6, 8080, server) == OUTSIDE6
            with listen(outside.namespace_fd, 81, address="::") as server:
                assert talk(box.namespace_fd, OUTSIDE6, 81, server) == HOST_WAN6
            names = engine.network._endpoints._names.of(other.record.container_id)
            assert names.addresses("box") == [six] and names.name_of(six) == "box.six"
            assert names.addresses("host.docker.internal") == [box.record.gateway6]
            with pytest.raises(InvalidArgument, match="without IPv4"):
                port = PortRequest(80, host_ip="127.0.0.1", host_port=8081)
                await engine.network.attach(new_id(), EndpointRequest(mode="six", ports=(port,)))
            with pytest.raises(InvalidArgument, match="IPv4 or IPv6 must be enabled"):
                await engine.network.create(NetworkRequest(name="none-at-all", ipv4=False))
            await engine.network.connect(box.record.container_id, EndpointRequest(mode="bridge"))
            await engine.network.disconnect(box.record.container_id, box.record.network_id)
            assert [record.network for record in engine.network.endpoints_of(box.record.container_id)] == ["bridge"]

    asyncio.run(scenario())
