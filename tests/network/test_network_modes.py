"""A bridge network's gateway modes and other options, by packets from a machine that routes to containers directly."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from network_world import HOST_WAN, OUTSIDE, OUTSIDE6, Engine, Outside, inside, is_reachable, listen, talk

from tare.errors import Conflict, InvalidArgument
from tare.kernel.netlink_route import RouteSocket
from tare.network.records import (
    AddressOptions,
    Endpoint,
    EndpointRequest,
    NetworkRecord,
    NetworkRequest,
    NetworkSettings,
    PortRequest,
)
from tare.values.ids import new_id

BRIDGE = "com.docker.network.bridge."
MODE4, MODE6 = BRIDGE + "gateway_mode_ipv4", BRIDGE + "gateway_mode_ipv6"
V4, V6 = AddressOptions(subnet="10.7.0.0/24"), AddressOptions(subnet="fd00:7::/64")


async def own(engine: Engine, internal: bool = False, **options: str) -> NetworkRecord:
    request = NetworkRequest(
        name="own", addresses=(V4, V6), ipv6=True, internal=internal, options=options
    )  # fmt: skip
    return await engine.network.create(request)


async def join(engine: Engine, network: str = "own", *ports: PortRequest, **more: str) -> Endpoint:
    request = EndpointRequest(mode=network, container_name="box", names=("box",), ports=ports, **more)  # type: ignore[arg-type]
    return await engine.network.attach(new_id(), request)


def test_routed_networks_are_reached_at_their_own_addresses(engine: Engine, outside: Outside) -> None:
    """What is published is reached at the container's address and port, with the true addresses both ways, and nothing
    else of it; no port of the host leads there; a second container's port stays shut; pings pass."""

    async def scenario() -> None:
        async with engine:
            outside.route_through_host()
            await own(engine, **{MODE4: "routed", MODE6: "routed"})
            box = await join(engine, "own", PortRequest(80, "tcp", "", 8080))
            other = await join(engine)
            assert [(port.host_ip, port.host_port) for port in box.ports] == [("0.0.0.0", 0), ("::", 0)]
            assert engine.published() == 0
            with listen(box.namespace_fd, 80) as server, listen(other.namespace_fd, 80), listen(box.namespace_fd, 81):
                assert talk(outside.namespace_fd, box.ip, 80, server) == OUTSIDE
                assert not is_reachable(outside.namespace_fd, box.ip, 81)
                assert not is_reachable(outside.namespace_fd, other.ip, 80)
                assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)
            with listen(box.namespace_fd, 80, address="::") as server:
                assert talk(outside.namespace_fd, box.record.ip6, 80, server) == OUTSIDE6
            with listen(outside.namespace_fd, 90) as server:
                assert talk(box.namespace_fd, OUTSIDE, 90, server) == box.ip
            assert pings(outside, other.ip)
            engine.network.unpublish(box.record.container_id, lambda _: True)
            with listen(box.namespace_fd, 80):
                assert not is_reachable(outside.namespace_fd, box.ip, 80)

    asyncio.run(scenario())


def pings(outside: Outside, address: str) -> bool:
    with inside(outside.namespace_fd):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with raw:
        raw.settimeout(2)
        raw.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", (address, 0))
        try:
            return raw.recvfrom(64)[1][0] == address
        except TimeoutError:
            return False


def test_nat_and_routing_can_be_mixed(engine: Engine, outside: Outside) -> None:
    """IPv4 through the host's port, IPv6 at the container's own address: what most networks want."""

    async def scenario() -> None:
        async with engine:
            outside.route_through_host()
            await own(engine, **{MODE6: "routed"})
            box = await join(engine, "own", PortRequest(80, "tcp", "", 8080))
            assert [(port.host_ip, port.host_port) for port in box.ports] == [("::", 0), ("0.0.0.0", 8080)]
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                assert not is_reachable(outside.namespace_fd, box.ip, 80)
            with listen(box.namespace_fd, 80, address="::") as server:
                assert talk(outside.namespace_fd, box.record.ip6, 80, server) == OUTSIDE6

    asyncio.run(scenario())


def test_routed_ports_obey_publish_allow(host: None, tmp_path: Path) -> None:
    """Who may not reach published ports at all doesn't reach those of a routed network, either."""
    outside = Outside()

    async def scenario(allow: str, reached: bool) -> None:
        settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", publish_allow=(allow,))
        path = tmp_path / str(reached)
        path.mkdir()
        async with Engine(path, settings) as engine:
            await own(engine, **{MODE4: "routed"})
            box = await join(engine, "own", PortRequest(80))
            with listen(box.namespace_fd, 80):
                assert is_reachable(outside.namespace_fd, box.ip, 80, expected=reached) == reached
            await engine.network.release(box.record.container_id)

    try:
        outside.route_through_host()
        asyncio.run(scenario("203.0.113.0/24", False))
        asyncio.run(scenario("198.51.100.0/24", True))
    finally:
        outside.close()


def test_unprotected_networks_are_open_to_machines_outside(engine: Engine, outside: Outside) -> None:
    """Every port of every container, by its own address, beside the published ones; not for other networks."""

    async def scenario() -> None:
        async with engine:
            outside.route_through_host()
            await own(engine, **{MODE4: "nat-unprotected"})
            box = await join(engine, "own", PortRequest(80, "tcp", "", 8080))
            stranger = await engine.attach()
            with listen(box.namespace_fd, 80) as server, listen(box.namespace_fd, 81) as more:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                assert talk(outside.namespace_fd, box.ip, 81, more) == OUTSIDE
                assert not is_reachable(stranger.namespace_fd, box.ip, 81)
            with listen(outside.namespace_fd, 90) as server:
                assert talk(box.namespace_fd, OUTSIDE, 90, server) == HOST_WAN

    asyncio.run(scenario())


def test_isolated_networks_do_not_have_the_host(engine: Engine, outside: Outside) -> None:
    """The bridge has no address, containers no gateway; they have each other. Only internal networks can be so."""

    async def scenario() -> None:
        async with engine:
            with pytest.raises(InvalidArgument, match="internal network"):
                await own(engine, **{MODE4: "isolated"})
            network = await own(engine, internal=True, **{MODE4: "isolated", MODE6: "isolated"})
            one, two = await join(engine), await join(engine)
            assert addresses(network) == ["fe80::1/64"] and one.gateway == ""
            with listen(two.namespace_fd, 80) as server:
                assert talk(one.namespace_fd, two.ip, 80, server) == one.ip
            assert await engine.network.mend() == []

    asyncio.run(scenario())


def addresses(network: NetworkRecord) -> list[str]:
    with RouteSocket() as sock:
        link = sock.link(network.bridge_name)
        assert link is not None
        return sorted(str(address.interface) for address in sock.addresses(link.ifindex))


def test_inhibit_ipv4_leaves_the_bridge_without_an_address(engine: Engine) -> None:
    """Somebody else is the gateway that containers are told."""

    async def scenario() -> None:
        async with engine:
            network = await own(engine, **{BRIDGE + "inhibit_ipv4": "true"})
            box = await join(engine)
            assert box.gateway == "10.7.0.1" and "10.7.0.1/24" not in addresses(network)
            assert await engine.network.mend() == []

    asyncio.run(scenario())


def test_a_link_is_called_as_asked(engine: Engine) -> None:
    """com.docker.network.endpoint.ifname; a second link can't be called so."""

    async def scenario() -> None:
        async with engine:
            await own(engine)
            box = await join(engine, "own", inside="lan7")
            assert box.record.inside == "lan7" and "10.7.0.2/24" in engine.addresses_inside(box)
            with pytest.raises(Conflict, match="lan7 is in use"):
                await engine.network.connect(box.record.container_id, EndpointRequest(mode="bridge", inside="lan7"))

    asyncio.run(scenario())


@pytest.mark.parametrize("value", ["bridged", "NAT"])
def test_unknown_modes_are_refused(engine: Engine, value: str) -> None:
    """By name, with those there are."""

    async def scenario() -> None:
        async with engine:
            with pytest.raises(InvalidArgument, match="nat, nat-unprotected, routed, isolated"):
                await own(engine, **{MODE4: value})

    asyncio.run(scenario())
