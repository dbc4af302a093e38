"""Containers that share the MAC of a link of the host (ipvlan), and networks on a VLAN of it, with real packets.

Kernels without such links skip; `make vm` has one with them.
"""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
from network_world import HOST_WAN, OUTSIDE, OUTSIDE6, Engine, Outside, inside, is_reachable, listen, talk
from test_network_macvlan import WAN, WAN6, default_gateway, join, lan, links_inside, links_on

from tare.errors import Forbidden, InvalidArgument
from tare.kernel import netlink_route as route
from tare.kernel import netlink_stacked as stacked
from tare.kernel.netlink_route import RouteSocket
from tare.network.records import AddressOptions

TAGGED = AddressOptions(subnet="203.0.113.0/24", gateway="203.0.113.2")
ROUTED = AddressOptions(subnet="203.0.113.0/24")


@pytest.fixture
def ipvlan() -> None:
    need("ipvlan")


@pytest.fixture
def vlan() -> None:
    need("vlan")


@pytest.fixture(params=["macvlan", "ipvlan"])
def driver(request: pytest.FixtureRequest) -> str:
    need(request.param)
    return str(request.param)


def need(kind: str) -> None:
    with RouteSocket() as sock:
        if not stacked.has_kind(sock, kind):
            pytest.skip(f"this kernel has no {kind} links")


def mac_of(name: str) -> str:
    with RouteSocket() as sock:
        link = sock.link(name)
    assert link is not None
    return link.mac


def join_vlan(outside: Outside, number: int, address: str) -> None:
    """The neighbour gets a link on the VLAN, with an address."""
    with inside(outside.namespace_fd), RouteSocket() as sock:
        below = sock.link("eth0")
        assert below is not None
        sock.execute((stacked.new_vlan("vlan", below.ifindex, number), route.set_up("vlan")))
        link = sock.link("vlan")
        assert link is not None
        sock.execute((route.new_address(link.ifindex, ipaddress.ip_interface(address)),))


def test_ipvlan_containers_share_their_parents_mac(ipvlan: None, engine: Engine, outside: Outside) -> None:
    """A neighbour reaches them at their own addresses, IPv4 and IPv6, and they each other and the neighbour; the host
    doesn't. A MAC of their own is refused. Nothing stays."""

    async def scenario() -> None:
        async with engine:
            network = await lan(engine, driver="ipvlan", addresses=(WAN, WAN6), ipv6=True)
            box, other = await join(engine, network), await join(engine, network, "other")
            assert links_inside(box) == {"eth0": "ipvlan"} and default_gateway(box) == OUTSIDE
            assert not box.record.routed_by_parent
            assert box.namespace_fd is not None
            with inside(box.namespace_fd):
                assert mac_of("eth0") == box.mac
            assert box.mac == mac_of("wan0")
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, box.ip, 80, server) == OUTSIDE
                assert talk(other.namespace_fd, box.ip, 80, server) == other.ip
                assert not is_reachable(None, box.ip, 80)
            with listen(box.namespace_fd, 80, address="::") as server:
                assert talk(outside.namespace_fd, box.record.ip6, 80, server) == OUTSIDE6
            with listen(outside.namespace_fd, 81) as server:
                assert talk(box.namespace_fd, OUTSIDE, 81, server) == box.ip
            with pytest.raises(InvalidArgument, match="do not support custom mac address assignment"):
                await join(engine, network, mac="02:00:00:00:00:77")
            with pytest.raises(Forbidden, match="already using parent interface wan0"):
                await lan(engine, "more", addresses=(AddressOptions(subnet="203.0.113.0/24"),))
            for one in (box, other):
                await engine.network.release(one.record.container_id)
            await engine.network.remove(network.network_id)

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_layer_3_is_routed_by_the_parent(ipvlan: None, engine: Engine, outside: Outside, mode: str) -> None:
    """The containers' subnet is none that the link knows, and nobody there answers for a gateway: the host's own routes
    lead out, and a neighbour needs one to the subnet through the host."""

    async def scenario() -> None:
        async with engine:
            network = await lan(engine, driver="ipvlan", addresses=(ROUTED,), options={"ipvlan_mode": mode})
            box, other = await join(engine, network), await join(engine, network, "other")
            assert box.record.routed_by_parent
            outside.route_through_host()
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, box.ip, 80, server) == OUTSIDE
                assert talk(other.namespace_fd, box.ip, 80, server) == other.ip
            with listen(outside.namespace_fd, 81) as server:
                assert talk(box.namespace_fd, OUTSIDE, 81, server) == box.ip

    asyncio.run(scenario())


@pytest.mark.parametrize(("flag", "reaches"), [("bridge", True), ("private", False), ("vepa", False)])
def test_flags_say_whether_neighbours_reach_each_other(
    ipvlan: None, engine: Engine, outside: Outside, flag: str, reaches: bool
) -> None:
    """In vepa a switch outside would have to send the frames back; this one doesn't."""

    async def scenario() -> None:
        async with engine:
            network = await lan(engine, driver="ipvlan", options={"ipvlan_flag": flag})
            one, two = await join(engine, network, "one"), await join(engine, network, "two")
            with listen(two.namespace_fd, 80):
                assert is_reachable(one.namespace_fd, two.ip, 80, expected=reaches) == reaches
                assert is_reachable(outside.namespace_fd, two.ip, 80, expected=True)

    asyncio.run(scenario())


def test_a_vlans_network_has_tagged_frames_only(vlan: None, driver: str, engine: Engine, outside: Outside) -> None:
    """parent=wan0.10: a neighbour on VLAN 10 is reached both ways, one beside it isn't, nor is one on VLAN 20; the link
    goes with the network."""

    async def scenario() -> None:
        async with engine:
            join_vlan(outside, 10, "203.0.113.2/24")
            tagged = await lan(engine, driver=driver, addresses=(TAGGED,), options={"parent": "wan0.10"})
            plain = await lan(engine, "plain", driver=driver)
            other = await lan(
                engine,
                "other",
                driver,
                addresses=(AddressOptions(subnet="192.0.2.0/24"),),
                options={"parent": "wan0.20"},
            )
            box, beside, far = [await join(engine, network) for network in (tagged, plain, other)]
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, box.ip, 80, server) == "203.0.113.2"
            with listen(outside.namespace_fd, 81) as server:
                assert talk(box.namespace_fd, "203.0.113.2", 81, server) == box.ip
                assert talk(beside.namespace_fd, OUTSIDE, 81, server) == beside.ip
                assert not is_reachable(far.namespace_fd, OUTSIDE, 81)
                assert not is_reachable(far.namespace_fd, "203.0.113.2", 81)
            for one in (box, beside, far):
                await engine.network.release(one.record.container_id)
            for network in (tagged, plain, other):
                await engine.network.remove(network.network_id)
            assert not links_on("wan0.10") and not links_on("wan0.20") and links_on("wan0")

    asyncio.run(scenario())


def test_a_vlans_link_of_the_hosts_own_stays(vlan: None, engine: Engine, outside: Outside) -> None:
    """And one that two networks share goes with the last of them."""

    async def scenario() -> None:
        async with engine:
            with RouteSocket() as sock:
                below = sock.link("wan0")
                assert below is not None
                sock.execute((stacked.new_vlan("wan0.30", below.ifindex, 30), route.set_up("wan0.30")))
            own = await lan(engine, "own", addresses=(TAGGED,), options={"parent": "wan0.30"})
            await engine.network.remove(own.network_id)
            assert links_on("wan0.30")
            with RouteSocket() as sock:
                sock.execute((route.delete_link("wan0.30"),))
            first = await lan(engine, "first", addresses=(TAGGED,), options={"parent": "wan0.10"})
            second = await lan(
                engine, "second", addresses=(AddressOptions(subnet="192.0.2.0/24"),), options={"parent": "wan0.10"}
            )
            await engine.network.remove(first.network_id)
            assert links_on("wan0.10")
            await engine.network.remove(second.network_id)
            assert not links_on("wan0.10")

    asyncio.run(scenario())


def test_a_lost_ipvlan_is_made_anew(ipvlan: None, vlan: None, engine: Engine, outside: Outside) -> None:
    """With its VLAN's link, which somebody deleted: repair brings both back, and the address."""

    async def scenario() -> None:
        async with engine:
            join_vlan(outside, 10, "203.0.113.2/24")
            network = await lan(engine, driver="ipvlan", addresses=(TAGGED,), options={"parent": "wan0.10"})
            box = await join(engine, network)
            with RouteSocket() as sock:
                sock.execute((route.delete_link("wan0.10"),))
            assert links_inside(box) == {}
            done = await engine.network.mend()
            assert "link wan0.10 of network lan" in done
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, box.ip, 80, server) == "203.0.113.2"
            assert not is_reachable(None, HOST_WAN, 80)

    asyncio.run(scenario())
