"""Networks without a bridge: containers are neighbours of the machines on a link of the host, with real packets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from network_world import (
    DEADLINE_S,
    HOST_WAN,
    HOST_WAN6,
    OUTSIDE,
    OUTSIDE6,
    Engine,
    Outside,
    delete_link,
    inside,
    is_reachable,
    listen,
    talk,
)

from tare import faults
from tare.errors import Conflict, Forbidden, InvalidArgument, TareError, Unavailable, Unsupported
from tare.kernel import netlink_stacked as stacked
from tare.kernel.netlink_route import RouteSocket
from tare.network.rates import Rate
from tare.network.records import AddressOptions, Endpoint, EndpointRequest, NetworkRecord, NetworkRequest, PortRequest
from tare.values.ids import new_id

WAN = AddressOptions(subnet="198.51.100.0/24", ip_range="198.51.100.128/25", gateway=OUTSIDE)
WAN6 = AddressOptions(subnet="2001:db8:1::/64", gateway=OUTSIDE6, aux={"host": HOST_WAN6})


async def lan(engine: Engine, name: str = "lan", driver: str = "macvlan", **more: object) -> NetworkRecord:
    options = {"parent": "wan0"} | dict(more.pop("options", {}))  # type: ignore[call-overload]
    addresses = more.pop("addresses", (WAN,))
    return await engine.network.create(
        NetworkRequest(name=name, driver=driver, addresses=addresses, options=options, **more)  # type: ignore[arg-type]
    )


async def join(engine: Engine, network: NetworkRecord, name: str = "box", **more: object) -> Endpoint:
    request = EndpointRequest(mode=network.name, container_name=name, names=(name,), **more)  # type: ignore[arg-type]
    return await engine.network.attach(new_id(), request)


def links_inside(box: Endpoint) -> dict[str, str]:
    assert box.namespace_fd is not None
    with inside(box.namespace_fd), RouteSocket() as sock:
        return {link.name: link.kind for link in sock.links() if link.name != "lo"}


def links_on(name: str) -> bool:
    with RouteSocket() as sock:
        return sock.link(name) is not None


def test_a_container_is_a_neighbour_of_the_hosts_own_network(engine: Engine, outside: Outside) -> None:
    """A machine outside reaches it at its own address, both ways with the true addresses, and no port is published;
    the host itself doesn't reach it (man 8 ip-link); IPv6 alike; nothing stays of network and container."""

    async def scenario() -> None:
        async with engine:
            network = await lan(engine, addresses=(WAN, WAN6), ipv6=True)
            box = await join(engine, network, ports=(PortRequest(80, "tcp", "", 8080),))
            other = await join(engine, network, "other")
            assert (box.ip, box.gateway, box.record.ip6) == ("198.51.100.128", OUTSIDE, "2001:db8:1::3")
            assert links_inside(box) == {"eth0": "macvlan"} and box.ports == () and engine.published() == 0
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, box.ip, 80, server) == OUTSIDE
                assert talk(other.namespace_fd, box.ip, 80, server) == other.ip
                assert not is_reachable(None, box.ip, 80)
                assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)
            with listen(box.namespace_fd, 80, address="::") as server:
                assert talk(outside.namespace_fd, box.record.ip6, 80, server) == OUTSIDE6
            with listen(outside.namespace_fd, 81) as server:
                assert talk(box.namespace_fd, OUTSIDE, 81, server) == box.ip
            for one in (box, other):
                await engine.network.release(one.record.container_id)
            await engine.network.remove(network.network_id)
            assert links_on("wan0")

    asyncio.run(scenario())


def test_an_address_is_had_again_at_once(engine: Engine, outside: Outside) -> None:
    """A container that asks for its address again, a moment after it left, gets it, with the same MAC: the kernel
    would refuse two links with one MAC."""

    async def scenario() -> None:
        async with engine:
            network = await lan(engine)
            for _ in range(3):
                box = await join(engine, network, ip="198.51.100.200")
                held = os.dup(box.namespace_fd or -1)  # somebody still keeps its namespace
                try:
                    with pytest.raises(Forbidden, match="already in use"):
                        await join(engine, network, ip="198.51.100.200")
                    await engine.network.release(box.record.container_id)
                finally:
                    os.close(held)
            with pytest.raises(InvalidArgument, match="no configured subnet contains"):
                await join(engine, network, ip="203.0.113.4")

    asyncio.run(scenario())


def test_containers_join_and_leave_while_they_run(engine: Engine, outside: Outside) -> None:
    """connect gives a container of the bridge a second link, disconnect takes it; ports stay with the bridge; the
    default route moves to who has priority, and back."""

    async def scenario() -> None:
        async with engine:
            network = await lan(engine)
            box = await engine.attach(PortRequest(80, "tcp", "", 8080))
            id_ = box.record.container_id
            record = await engine.network.connect(id_, EndpointRequest(mode="lan", container_name="box", priority=5))
            assert links_inside(box) == {"eth0": "veth", "eth1": "macvlan"}
            assert default_gateway(box) == OUTSIDE
            assert engine.published() == 1
            with listen(box.namespace_fd, 81) as server:
                assert talk(outside.namespace_fd, record.ip, 81, server) == OUTSIDE
            await engine.network.disconnect(id_, network.network_id)
            assert links_inside(box) == {"eth0": "veth"}
            assert default_gateway(box) == box.gateway
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
            with pytest.raises(Conflict):
                await engine.network.connect(new_id(), EndpointRequest(mode="lan"))

    asyncio.run(scenario())


def default_gateway(box: Endpoint) -> str:
    assert box.namespace_fd is not None
    with inside(box.namespace_fd), RouteSocket() as sock:
        return next((str(route.gateway) for route in sock.routes() if route.destination is None), "")


def test_without_a_parent_containers_have_only_each_other(engine: Engine, outside: Outside) -> None:
    """The link that is made leads nowhere and goes with its network; there is no default route, nor a resolver."""

    async def scenario() -> None:
        async with engine:
            network = await engine.network.create(NetworkRequest(name="own", driver="macvlan"))
            one, two = await join(engine, network, "one"), await join(engine, network, "two")
            assert links_on(network.parent_link) and default_gateway(one) == "" == one.gateway
            with listen(two.namespace_fd, 80) as server:
                assert talk(one.namespace_fd, two.ip, 80, server) == one.ip
            assert engine.network._endpoints._names.of(one.record.container_id).servers() == []
            for box in (one, two):
                await engine.network.release(box.record.container_id)
            await engine.network.remove(network.network_id)
            assert not links_on(network.parent_link)

    asyncio.run(scenario())


@pytest.mark.parametrize(("mode", "reaches"), [("bridge", True), ("private", False), ("vepa", False)])
def test_modes_say_whether_neighbours_reach_each_other(
    engine: Engine, outside: Outside, mode: str, reaches: bool
) -> None:
    """In vepa a switch outside would have to send the frames back; this one doesn't."""

    async def scenario() -> None:
        async with engine:
            network = await lan(engine, options={"macvlan_mode": mode})
            one, two = await join(engine, network, "one"), await join(engine, network, "two")
            with listen(two.namespace_fd, 80):
                assert is_reachable(one.namespace_fd, two.ip, 80, expected=reaches) == reaches
                assert is_reachable(outside.namespace_fd, two.ip, 80, expected=True)

    asyncio.run(scenario())


def test_passthru_is_for_one_container(engine: Engine, outside: Outside) -> None:
    """A second container is refused, and so is a second network on the parent."""

    async def scenario() -> None:
        async with engine:
            network = await lan(engine, options={"macvlan_mode": "passthru"})
            await join(engine, network)
            with pytest.raises(Unavailable, match="macvlan port on wan0"):
                await join(engine, network)
            with pytest.raises(Forbidden, match="already using parent interface wan0"):
                await lan(engine, "more", addresses=(AddressOptions(subnet="203.0.113.0/24"),))

    asyncio.run(scenario())


def test_what_the_host_can_not_do_here_is_refused(engine: Engine, outside: Outside) -> None:
    """Egress policies, rates and guards need a bridge; a container with a policy doesn't start beside its way out."""

    async def scenario() -> None:
        async with engine:
            for option in ("tare.network.egress", "tare.network.guard"):
                with pytest.raises(InvalidArgument, match="needs a bridge network"):
                    await lan(engine, options={option: "none"})
            network = await lan(engine)
            with pytest.raises(InvalidArgument, match="egress policy needs a bridge network"):
                await join(engine, network, egress="none")
            with pytest.raises(InvalidArgument, match="rate needs a bridge network"):
                await join(engine, network, rate=Rate(1_000_000, 65_536))
            box = await join(engine, network)
            with pytest.raises(InvalidArgument, match="egress policy needs a bridge network"):
                engine.network.set_egress(box.record.container_id, "none")
            with pytest.raises(InvalidArgument, match="doesn't publish ports"):
                engine.network.publish(box.record.container_id, (PortRequest(80),))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"macvlan_mode": "foo"}, InvalidArgument, "'bridge' mode is the macvlan driver default"),
        ({"parent": "lo"}, InvalidArgument, "loopback interface is not a valid macvlan parent link"),
        ({"parent": "nix0"}, InvalidArgument, "invalid subinterface vlan name nix0, example formatting is eth0.10"),
        ({"parent": "nix0.7"}, InvalidArgument, "not found on the host: nix0"),
        ({"parent": "wan0.4095"}, InvalidArgument, "vlan id must be between 1-4094, received: 4095"),
    ],
)
def test_wrong_parents_are_refused(
    engine: Engine, outside: Outside, options: dict[str, str], error: type[TareError], text: str
) -> None:
    """In Docker's words; nothing of the network stays."""

    async def scenario() -> None:
        async with engine:
            with pytest.raises(error, match=text):
                await lan(engine, options=options)
            assert [record.name for record in engine.network.networks()] == ["bridge", "host", "none"]

    asyncio.run(scenario())


def test_a_vlan_of_a_parent_is_made_and_removed(engine: Engine, outside: Outside) -> None:
    """parent=wan0.10 makes VLAN 10's link; a kernel without VLANs is told so by name."""

    async def scenario() -> None:
        async with engine:
            with RouteSocket() as sock:
                has_vlans = stacked.has_kind(sock, "vlan")
            if not has_vlans:
                with pytest.raises(Unsupported, match=r"this kernel .* has no VLAN links"):
                    await lan(engine, options={"parent": "wan0.10"})
                return
            network = await lan(engine, options={"parent": "wan0.10"})
            assert links_on("wan0.10")
            await engine.network.remove(network.network_id)
            assert not links_on("wan0.10")

    asyncio.run(scenario())


def test_ipvlan_shares_its_parents_mac(engine: Engine, outside: Outside) -> None:
    """With real packets where the kernel has ipvlan; elsewhere the kernel is named."""

    async def scenario() -> None:
        async with engine:
            with RouteSocket() as sock:
                has_ipvlan = stacked.has_kind(sock, "ipvlan")
            if not has_ipvlan:
                with pytest.raises(Unsupported, match=r"this kernel .* has no ipvlan links"):
                    await lan(engine, driver="ipvlan")
                return
            network = await lan(engine, driver="ipvlan")
            box = await join(engine, network)
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, box.ip, 80, server) == OUTSIDE

    asyncio.run(scenario())


def test_after_a_crash_and_a_lost_link_containers_are_whole(engine: Engine, outside: Outside) -> None:
    """The next engine finds a live container's link; one that was deleted with its parent is made anew by repair, and
    the parent, too."""

    async def scenario() -> None:
        async with engine:
            own = await engine.network.create(NetworkRequest(name="own", driver="macvlan"))
            one, two = await join(engine, own, "one"), await join(engine, own, "two")
            delete_link(own.parent_link)
            assert links_inside(one) == {}
            done = await asyncio.wait_for(engine.network.mend(), DEADLINE_S)
            assert f"link {own.parent_link} of network own" in done
            assert f"link of container {one.record.container_id[:12]} to network own" in done
            assert await engine.network.mend() == []
            with listen(two.namespace_fd, 80) as server:
                assert talk(one.namespace_fd, two.ip, 80, server) == one.ip

    asyncio.run(scenario())


@contextmanager
def armed(point: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in (("_name", point), ("_action", "raise"), ("_left", 1)):
            patch.setattr(faults, name, value)
        yield


def test_wherever_making_or_joining_fails_nothing_stays(
    engine: Engine, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault points one after the other: no link of the network's own, no lease, and the same can be done at once."""

    async def scenario() -> None:
        async with engine:
            for point in ("network.parent.create", "network.create.bridge"):
                with armed(point, monkeypatch), pytest.raises(faults.InjectedFault):
                    await engine.network.create(NetworkRequest(name="own", driver="macvlan"))
                with RouteSocket() as sock:
                    assert not any(link.name.startswith("dm-") for link in sock.links())
            own = await engine.network.create(NetworkRequest(name="own", driver="macvlan"))
            for point in ("network.attach.recorded", "network.attach.connected"):
                with armed(point, monkeypatch), pytest.raises(faults.InjectedFault):
                    await join(engine, own, "one")
                assert engine.network.endpoints() == []

    asyncio.run(scenario())
