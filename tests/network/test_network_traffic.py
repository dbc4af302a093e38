"""Real packets between containers, the host and the world outside."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_world import (
    HOST_WAN,
    OUTSIDE,
    Engine,
    Outside,
    client_socket,
    frame_socket,
    is_reachable,
    is_silent,
    link_mac,
    listen,
    mac_bytes,
    talk,
    talk_udp,
    udp_frame,
)

from tare.kernel.netlink_route import RouteSocket
from tare.network.records import NetworkSettings, PortRequest

_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@pytest.fixture(params=["bridge-filter", "no-bridge-filter"])
def bridge_filter(host: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """With br_netfilter (as on hosts with Docker) packets between ports of a bridge meet the rules too."""
    if _BRIDGE_FILTER.exists():
        _BRIDGE_FILTER.write_text("1" if request.param == "bridge-filter" else "0")
    elif request.param == "bridge-filter":
        pytest.skip("this kernel has no br_netfilter loaded")
    yield


def test_containers_and_host_reach_each_other(bridge_filter: None, engine: Engine) -> None:
    """Two containers and the host talk over the bridge, each seen under its own address."""

    async def scenario() -> None:
        async with engine:
            one, two = await engine.attach(), await engine.attach()
            assert (one.ip, one.prefix, one.gateway, one.mac) == ("172.30.0.2", 24, "172.30.0.1", "02:42:ac:1e:00:02")
            with listen(two.namespace_fd, 80) as server:
                assert talk(one.namespace_fd, two.ip, 80, server) == one.ip
                assert talk(None, two.ip, 80, server) == "172.30.0.1"
            with listen(None, 81) as server:
                assert talk(one.namespace_fd, one.gateway, 81, server) == one.ip

    asyncio.run(scenario())


def test_outside_sees_the_hosts_address(engine: Engine, outside: Outside) -> None:
    """What a container sends out is masqueraded; UDP too."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach()
            with listen(outside.namespace_fd, 80) as server:
                assert talk(box.namespace_fd, OUTSIDE, 80, server) == HOST_WAN
            with listen(outside.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                assert talk_udp(box.namespace_fd, OUTSIDE, 53, server) == HOST_WAN

    asyncio.run(scenario())


def test_published_port_from_everywhere(bridge_filter: None, engine: Engine, outside: Outside) -> None:
    """A published port answers outside (whose address is kept), the host by each of its addresses, and containers."""

    async def scenario() -> None:
        async with engine:
            box, other = await engine.attach(PortRequest(80, host_port=8080)), await engine.attach()
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                assert talk(None, "127.0.0.1", 8080, server) == "172.30.0.1"
                assert talk(None, HOST_WAN, 8080, server) == HOST_WAN
                assert talk(None, "172.30.0.1", 8080, server) == "172.30.0.1"
                assert talk(other.namespace_fd, HOST_WAN, 8080, server) == "172.30.0.1"
                assert talk(box.namespace_fd, HOST_WAN, 8080, server) == "172.30.0.1"
                assert talk(box.namespace_fd, "172.30.0.1", 8080, server) == "172.30.0.1"
            await engine.network.release(box.record.container_id)
            assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)

    asyncio.run(scenario())


def test_published_udp_port(engine: Engine, outside: Outside) -> None:
    """UDP is published as TCP is, and both may have the same number."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(53, "udp", host_port=5353), PortRequest(80, "tcp", host_port=5353))
            with listen(box.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                assert talk_udp(outside.namespace_fd, HOST_WAN, 5353, server) == OUTSIDE
                assert talk_udp(None, "127.0.0.1", 5353, server) == "172.30.0.1"
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 5353, server) == OUTSIDE

    asyncio.run(scenario())


def test_port_on_one_address_only(engine: Engine, outside: Outside) -> None:
    """A port published on one address of the host answers on that one."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, host_ip=HOST_WAN, host_port=8080))
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                assert not is_reachable(None, "127.0.0.1", 8080)

    asyncio.run(scenario())


def test_loopback_port_is_shut_to_the_outside(engine: Engine, outside: Outside) -> None:
    """What is published on 127.0.0.1 can't be had from outside: not by the host's address, nor the container's, nor
    by packets to 127.0.0.1 on a link whose route_localnet somebody switched on."""

    async def scenario() -> None:
        async with engine:
            Path("/proc/sys/net/ipv4/conf/wan0/route_localnet").write_text("1")
            outside.route_through_host()
            box = await engine.attach(
                PortRequest(80, host_ip="127.0.0.1", host_port=8080),
                PortRequest(53, "udp", host_ip="127.0.0.1", host_port=8053),
            )
            with listen(box.namespace_fd, 80) as server, listen(box.namespace_fd, 53, socket.SOCK_DGRAM) as udp:
                assert talk(None, "127.0.0.1", 8080, server) == "172.30.0.1"
                assert talk_udp(None, "127.0.0.1", 8053, udp) == "172.30.0.1"
                assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)
                assert not is_reachable(outside.namespace_fd, box.ip, 80)
                with frame_socket(outside.namespace_fd, "eth0") as frames:
                    frames.send(udp_frame(link_mac("wan0"), OUTSIDE, "127.0.0.1", 8053))
                assert is_silent(udp)

    asyncio.run(scenario())


def test_container_cannot_reach_the_hosts_loopback(engine: Engine) -> None:
    """route_localnet on the bridge gives containers no way to the host's 127.0.0.1 (CVE-2020-8558)."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach()
            with listen(None, 9999, socket.SOCK_DGRAM) as server, frame_socket(box.namespace_fd, "eth0") as frames:
                with client_socket(box.namespace_fd, socket.SOCK_DGRAM) as first:
                    first.sendto(b"up", (box.gateway, 9999))  # a frame is lost until the port forwards
                    assert server.recv(16) == b"up"
                frames.send(udp_frame(link_mac("tn0"), box.ip, box.gateway, 9999, mac_bytes(box)))
                assert server.recv(16) == b"frame"
                frames.send(udp_frame(link_mac("tn0"), box.ip, "127.0.0.1", 9999, mac_bytes(box)))
                frames.send(udp_frame(link_mac("tn0"), "127.0.0.1", box.gateway, 9999, mac_bytes(box)))
                assert is_silent(server)

    asyncio.run(scenario())


def test_unpublished_port_is_shut_to_the_outside(engine: Engine, outside: Outside) -> None:
    """A neighbour who routes the containers' subnet through the host reaches no port, published or not."""

    async def scenario() -> None:
        async with engine:
            outside.route_through_host()
            box = await engine.attach(PortRequest(81, host_port=8081))
            with listen(box.namespace_fd, 80), listen(box.namespace_fd, 81):
                assert is_reachable(None, box.ip, 80, expected=True)
                assert not is_reachable(outside.namespace_fd, box.ip, 80)
                assert not is_reachable(outside.namespace_fd, box.ip, 81)

    asyncio.run(scenario())


def test_icc_off(host: None, tmp_path: Path, bridge_filter: None) -> None:
    """Without icc containers reach the host, not each other, with or without br_netfilter."""
    settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", icc=False)

    async def scenario() -> None:
        async with Engine(tmp_path, settings) as engine:
            one, two = await engine.attach(), await engine.attach()
            with listen(two.namespace_fd, 80) as server:
                assert talk(None, two.ip, 80, server) == "172.30.0.1"
                assert not is_reachable(one.namespace_fd, two.ip, 80)

    asyncio.run(scenario())


def test_two_engines_side_by_side(host: None, tmp_path: Path) -> None:
    """Two engines on one host don't disturb each other; their containers meet only through published ports."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    second = NetworkSettings(bridge_name="tn1", table="tnb")

    async def scenario() -> None:
        async with Engine(tmp_path / "a") as a:
            async with Engine(tmp_path / "b", second) as b:
                one, two = await a.attach(), await b.attach(PortRequest(80, host_port=8080))
                assert two.ip == "172.17.0.2"
                with listen(two.namespace_fd, 80) as server:
                    assert not is_reachable(one.namespace_fd, two.ip, 80)
                    assert talk(one.namespace_fd, one.gateway, 8080, server)
            with listen(one.namespace_fd, 80) as server:
                assert talk(None, one.ip, 80, server) == "172.30.0.1"

    asyncio.run(scenario())


def test_no_ipv6_inside(engine: Engine) -> None:
    """Neither a container on an IPv4 network nor its links on the host have an IPv6 address but the loopback's
    (CVE-2024-32473), and the bridge takes no router advertisements (CVE-2020-13401)."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach()
            assert Path("/proc/sys/net/ipv6/conf/tn0/accept_ra").read_text() == "0\n"
            with RouteSocket() as sock:
                assert [str(item.interface) for item in sock.addresses(family=socket.AF_INET6)] == ["::1/128"]
            assert engine.addresses_inside(box) == ["127.0.0.1/8", "172.30.0.2/24", "::1/128"]

    asyncio.run(scenario())
