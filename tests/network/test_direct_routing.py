"""What machines that route to containers directly reach of them, whatever kind of network they are on."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from network_topology import CLIENT, CLIENT6, Topology
from network_world import DEADLINE_S, HOST_WAN, HOST_WAN6, Engine, inside, is_reachable, listen, talk

from tare.network.records import (
    AddressOptions,
    Endpoint,
    EndpointRequest,
    NetworkRequest,
    NetworkSettings,
    PortRequest,
)
from tare.values.ids import new_id


def test_direct_routing_can_be_allowed(host: None, world: Topology, tmp_path: Path) -> None:
    """--allow-direct-routing: other machines reach published ports at containers' own addresses, over IPv4 and IPv6,
    and are seen by theirs; --publish-allow holds. Ports that aren't published, internal networks, the way from other
    networks stay shut, and so is what was published until now, though two ports of the host led there."""
    for number in (7, 8):
        world.router("route", "add", f"10.{number}.0.0/24", "via", HOST_WAN)
        world.router("route", "add", f"fd00:{number}::/64", "via", HOST_WAN6)

    async def join(engine: Engine, number: int, *ports: PortRequest, internal: bool = False) -> Endpoint:
        addresses = (AddressOptions(subnet=f"10.{number}.0.0/24"), AddressOptions(subnet=f"fd00:{number}::/64"))
        network = NetworkRequest(name=f"n{number}", addresses=addresses, ipv6=True, internal=internal)
        await engine.network.create(network)
        wish = EndpointRequest(mode=f"n{number}", container_name="box", ports=ports)
        return await engine.network.attach(new_id(), wish)

    async def scenario(allow: tuple[str, ...], reached: bool) -> None:
        settings = NetworkSettings(
            bridge_name="tn0", table="tn", subnet="172.30.0.0/24", publish_allow=allow, allow_direct_routing=True
        )
        path = tmp_path / str(reached)
        path.mkdir()
        async with Engine(path, settings) as engine:
            box = await join(engine, 7, PortRequest(80, host_port=8080), PortRequest(80, host_port=8081))
            hidden = await join(engine, 8, PortRequest(80, host_port=8090), internal=True)
            stranger = await engine.attach()
            own, own6 = box.ip, box.record.ip6
            with listen(box.namespace_fd, 80) as server, listen(box.namespace_fd, 80, address="::") as server6:
                if not reached:
                    assert not is_reachable(world.client_fd, own, 80) and not is_reachable(world.client_fd, own6, 80)
                    return
                assert talk(world.client_fd, own, 80, server) == CLIENT
                assert talk(world.client_fd, own6, 80, server6) == CLIENT6
                assert talk(world.client_fd, HOST_WAN, 8080, server) == CLIENT
                assert not is_reachable(stranger.namespace_fd, own, 80)
                with listen(box.namespace_fd, 81), listen(box.namespace_fd, 81, address="::"):
                    assert not is_reachable(world.client_fd, own, 81) and not is_reachable(world.client_fd, own6, 81)
                with listen(hidden.namespace_fd, 80):
                    assert not is_reachable(world.client_fd, hidden.ip, 80)
                    assert not is_reachable(world.client_fd, hidden.record.ip6, 80)
                await engine.network.restore({one.record.container_id for one in (box, hidden, stranger)})
                assert talk(world.client_fd, own, 80, server) == CLIENT
                engine.network.unpublish(box.record.container_id, lambda port: port.host_port == 8080)
                assert talk(world.client_fd, own6, 80, server6) == CLIENT6
                engine.network.unpublish(box.record.container_id, lambda port: port.host_port == 8081)
                assert not is_reachable(world.client_fd, own, 80) and not is_reachable(world.client_fd, own6, 80)

    asyncio.run(scenario((), True))
    asyncio.run(scenario(("198.51.100.0/24",), False))


MODES = "com.docker.network.bridge.gateway_mode_ipv"
V4, V6 = AddressOptions(subnet="10.7.0.0/24"), AddressOptions(subnet="fd00:7::/64")
REACHED: dict[str, set[str]] = {  # at the container's own address
    "nat": set(),
    "nat-unprotected": {"published", "other port", "ping"},
    "routed": {"published", "ping"},
    "isolated": set(),
}


@pytest.mark.parametrize("mode", REACHED)
def test_what_each_gateway_mode_opens(engine: Engine, world: Topology, mode: str) -> None:
    """A client behind a router whose packets come to the host, over IPv4 and IPv6: by the host's port in the modes with
    NAT only; a published port at the container's own address, a port that isn't, and a ping as the mode says."""
    world.router("route", "add", "10.7.0.0/24", "via", HOST_WAN)
    world.router("route", "add", "fd00:7::/64", "via", HOST_WAN6)

    async def scenario() -> None:
        async with engine:
            options = {MODES + "4": mode, MODES + "6": mode}
            internal = mode == "isolated"
            network = NetworkRequest(name="own", addresses=(V4, V6), ipv6=True, internal=internal, options=options)
            await engine.network.create(network)
            wish = EndpointRequest(mode="own", container_name="box", ports=(PortRequest(80, host_port=8080),))
            box = await engine.network.attach(new_id(), wish)
            for own, host, any_address, client in (
                (box.ip, HOST_WAN, "0.0.0.0", CLIENT),
                (box.record.ip6, HOST_WAN6, "::", CLIENT6),
            ):
                with (
                    listen(box.namespace_fd, 80, address=any_address) as published,
                    listen(box.namespace_fd, 81, address=any_address) as other,
                ):
                    if mode.startswith("nat"):
                        assert talk(world.client_fd, host, 8080, published) == client
                    else:
                        assert not is_reachable(world.client_fd, host, 8080)
                    for port, server, what in ((80, published, "published"), (81, other, "other port")):
                        if what in REACHED[mode]:
                            assert talk(world.client_fd, own, port, server) == client
                        else:
                            assert not is_reachable(world.client_fd, own, port)
                    expected = "ping" in REACHED[mode]
                    assert is_answered(world.client_fd, own, DEADLINE_S if expected else 0.5) == expected

    asyncio.run(scenario())


def is_answered(namespace_fd: int, address: str, timeout: float) -> bool:
    """Whether a ping is answered."""
    version6 = ":" in address
    family, protocol = (socket.AF_INET6, "ipv6-icmp") if version6 else (socket.AF_INET, "icmp")
    with inside(namespace_fd):
        raw = socket.socket(family, socket.SOCK_RAW, socket.getprotobyname(protocol))
    with raw:
        raw.settimeout(timeout)
        # An echo request without content; of IPv6 the kernel writes the checksum (RFC 792, RFC 4443).
        raw.sendto(b"\x80\0\0\0\0\0\0\0" if version6 else b"\x08\0\xf7\xff\0\0\0\0", (address, 0))
        try:
            while raw.recvfrom(128)[1][0] != address:
                pass
        except TimeoutError:
            return False
        return True
