"""Addresses: lowest free one, never one whose link lives, never lost."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from pathlib import Path

import pytest
from network_world import Engine, Outside, delete_link, inside, make_netns, open_inside

from tare import faults
from tare.errors import Conflict, InvalidArgument, KernelError, ResourceExhausted, Unavailable
from tare.kernel import netns
from tare.kernel.netlink_route import RouteSocket
from tare.network import ipam
from tare.network.doors import Doors
from tare.network.records import EndpointRequest, NetworkSettings, PortRequest
from tare.network.service import Network
from tare.storage.database import Database
from tare.values.ids import is_id, new_id


def small(path: Path, subnet: str = "172.30.0.0/29") -> Engine:
    return Engine(path, NetworkSettings(bridge_name="tn0", table="tn", subnet=subnet))


def test_address_waits_for_its_link(host: None, tmp_path: Path) -> None:
    """A released address isn't given away while something still holds the namespace with its link."""

    async def scenario() -> None:
        async with small(tmp_path) as engine:
            box = await engine.attach()
            assert box.namespace_fd is not None
            held = os.dup(box.namespace_fd)
            await engine.network.release(box.record.container_id)
            others = [await engine.attach() for _ in range(4)]
            assert [other.ip for other in others] == [f"172.30.0.{last}" for last in (3, 4, 5, 6)]
            with pytest.raises(ResourceExhausted, match="no available IPv4 addresses on this network's address pools"):
                await engine.attach()
            await engine.network.wait_released()  # deletes the link by hand
            assert (await engine.attach()).ip == box.ip
            os.close(held)

    asyncio.run(scenario())


def test_two_hundred_cycles_leak_nothing(engine: Engine) -> None:
    """Attaching and releasing 200 times leaves no lease, row, link, element or descriptor (counted by the fixture)."""

    async def scenario() -> None:
        async with engine:
            for _ in range(50):
                boxes = [await engine.attach(PortRequest(80)) for _ in range(4)]
                for box in boxes:
                    await engine.network.release(box.record.container_id)
            await engine.network.wait_released()
            assert engine.published() == 0
            assert engine.ports_of_bridge() == []
            held = engine.db.all("SELECT holder FROM network_leases WHERE link <> ''")
            assert held == []

    asyncio.run(scenario())


def test_bridge_address_is_never_given_away(host: None, tmp_path: Path) -> None:
    """--bip with an address in the middle: the bridge has it, containers get the others."""

    async def scenario() -> None:
        async with small(tmp_path, "172.30.0.3/29") as engine:
            assert engine.network.gateway() == "172.30.0.3"
            ips = [(await engine.attach()).ip for _ in range(5)]
            assert ips == [f"172.30.0.{last}" for last in (1, 2, 4, 5, 6)]

    asyncio.run(scenario())


def test_subnet_that_the_host_does_not_use(host: None, outside: Outside, tmp_path: Path) -> None:
    """Without --bip the first pool that no route or address of the host overlaps; kept for the data root's life."""
    pools = ("198.51.0.0/16", "172.29.0.0/16")

    async def scenario(settings: NetworkSettings) -> None:
        async with Engine(tmp_path, settings) as engine:
            assert (await engine.attach()).ip == "172.29.0.2"

    asyncio.run(scenario(NetworkSettings(bridge_name="tn0", table="tn", address_pools=pools)))
    asyncio.run(scenario(NetworkSettings(bridge_name="tn0", table="tn")))


def test_changed_subnet(host: None, tmp_path: Path) -> None:
    """With another --bip at the next start the bridge changes its address once nobody uses the old one."""

    async def scenario(subnet: str) -> None:
        engine = small(tmp_path, subnet)
        await engine.network.start()
        await engine.network.restore([])
        box = await engine.attach()
        assert ipaddress.ip_address(box.ip) in ipaddress.ip_network(subnet)
        assert engine.bridge_addresses() == [subnet.replace(".0/", ".1/")]
        await engine.network.release(box.record.container_id)
        await engine.network.wait_released()
        await engine.network.stop(remove=subnet == "172.29.0.0/24")
        engine.db.close()

    asyncio.run(scenario("172.30.0.0/24"))
    asyncio.run(scenario("172.29.0.0/24"))


@pytest.mark.parametrize("text", ["172.30.0.0", "x", "172.30.0.1/31", "172.30.0.255/24", "fd00::/64"])
def test_bad_subnet(text: str) -> None:
    """What can't be a bridge's subnet is named in Docker's words."""
    with pytest.raises(InvalidArgument, match="invalid CIDR address: "):
        ipam.parse_subnet(text)


def test_networks_keep_their_ids(engine: Engine, tmp_path: Path) -> None:
    """bridge, host and none are there, with ids that outlive the engine."""

    async def scenario(again: Engine) -> dict[str, str]:
        async with again:
            return {record.name: record.network_id for record in again.network.networks()}

    ids = asyncio.run(scenario(engine))
    assert sorted(ids) == ["bridge", "host", "none"]
    assert all(map(is_id, ids.values()))
    assert asyncio.run(scenario(Engine(tmp_path))) == ids


def test_modes_none_and_host(engine: Engine) -> None:
    """none: a namespace with a loopback only; host: the host's; each with an endpoint record; twice is a conflict."""

    async def scenario() -> None:
        async with engine:
            alone = await engine.network.attach(new_id(), EndpointRequest(mode="none"))
            assert engine.addresses_inside(alone) == ["127.0.0.1/8", "::1/128"]
            shared = await engine.network.attach(new_id(), EndpointRequest(mode="host"))
            assert (shared.namespace_fd, shared.ip, shared.record.network) == (None, "", "host")
            with pytest.raises(Conflict, match="is already attached"):
                await engine.network.attach(shared.record.container_id, EndpointRequest(mode="none"))
            await engine.network.release("0" * 64)

    asyncio.run(scenario())


def test_disabled_bridge(host: None, tmp_path: Path) -> None:
    """Without a bridge the other modes work, and bridge is refused."""

    async def scenario() -> None:
        db = Database(tmp_path / "state.db")
        network = Network(
            db, NetworkSettings(enabled=False, bridge_name="tn0", table="tn"), Doors(make_netns, open_inside)
        )
        await network.start()
        await network.restore([])
        with pytest.raises(Unavailable, match="the default bridge network is disabled"):
            await network.attach(new_id(), EndpointRequest())
        box = await network.attach(new_id(), EndpointRequest(mode="none"))
        await network.release(box.record.container_id)
        await network.stop(remove=True)
        db.close()

    asyncio.run(scenario())


def test_failed_attach_gives_everything_back(engine: Engine) -> None:
    """If the kernel refuses the link, address, port and namespace are free again."""

    async def scenario() -> None:
        async with engine:
            delete_link("tn0")
            with pytest.raises(KernelError, match="RTM_NEWLINK"):
                await engine.attach(PortRequest(80, host_port=8080))
            engine.network.repair()
            assert engine.network.endpoints() == []
            await engine.network.wait_released()
            assert (await engine.attach(PortRequest(80, host_port=8080))).ip == "172.30.0.2"

    asyncio.run(scenario())


def test_bridge_of_another_kind(host: None, tmp_path: Path) -> None:
    """A link of the bridge's name that is no bridge, or another engine's bridge with containers, is left alone."""

    async def scenario() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with Engine(tmp_path / "a") as first:
            await first.attach()
            second = Engine(tmp_path / "b")
            with pytest.raises(Conflict, match="belongs to another engine"):
                await second.network.start()
            await second.network.stop()
            second.db.close()
        third = Engine(tmp_path / "b", NetworkSettings(bridge_name="lo", table="tn", subnet="172.30.0.0/24"))
        with pytest.raises(Conflict, match="there is a link lo already"):
            await third.network.start()
        await third.network.stop()
        third.db.close()

    asyncio.run(scenario())


def test_pool_keeps_namespaces_ready(engine: Engine) -> None:
    """The pool fills itself, and a failing maker only fails those who need it."""
    made = 0

    async def make() -> netns.Netns:
        nonlocal made
        made += 1
        if made > 3:
            raise KernelError(28, "unshare")
        return netns.create()

    async def scenario() -> None:
        engine.network = Network(engine.db, engine.settings, Doors(make, open_inside))
        async with engine:
            await engine.network._pool.wait_full()
            assert made == 3
            for _ in range(3):
                await engine.attach()
            with pytest.raises(KernelError, match="unshare"):
                await engine.attach()

    engine.network._route.close()
    assert engine.network._table is not None
    engine.network._table.close()
    asyncio.run(scenario())


@pytest.mark.parametrize("point", ["network.ports.reserve", "network.attach.recorded", "network.attach.connected"])
def test_attach_fails_at(point: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failing at this point, attach leaves nothing, and succeeds when repeated."""

    async def scenario() -> None:
        async with engine:
            request = EndpointRequest(ports=(PortRequest(80, host_port=8080), PortRequest(53, "udp", host_port=8053)))
            container_id = new_id()
            arm(monkeypatch, point)
            with pytest.raises(faults.InjectedFault):
                await engine.network.attach(container_id, request)
            assert (engine.network.endpoints(), engine.published()) == ([], 0)
            await engine.network.wait_released()
            assert (await engine.network.attach(container_id, request)).ip == "172.30.0.2"

    asyncio.run(scenario())


@pytest.mark.parametrize("point", ["network.release.unpublished", "network.release.forgotten"])
def test_release_fails_at(point: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failing at this point, release succeeds when repeated."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, host_port=8080))
            arm(monkeypatch, point)
            with pytest.raises(faults.InjectedFault):
                await engine.network.release(box.record.container_id)
            await engine.network.release(box.record.container_id)
            assert (engine.network.endpoints(), engine.published()) == ([], 0)
            await engine.network.wait_released()
            assert (await engine.attach(PortRequest(80, host_port=8080))).ip == box.ip

    asyncio.run(scenario())


def arm(monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    for name, value in (("_name", point), ("_left", 1), ("_action", "raise")):
        monkeypatch.setattr(faults, name, value)


def test_many_at_once(engine: Engine) -> None:
    """Thirty containers that start together get thirty addresses and thirty ports."""

    async def scenario() -> None:
        async with engine:
            boxes = await asyncio.gather(*(engine.attach(PortRequest(80)) for _ in range(30)))
            assert len({box.ip for box in boxes}) == len({box.ports[0].host_port for box in boxes}) == 30
            assert engine.published() == 30

    asyncio.run(scenario())


def test_bridge_takes_an_address_that_a_container_has(host: None, tmp_path: Path) -> None:
    """With a --bip that a container of the last life still had, nobody gets that address again."""

    async def first_life() -> None:
        engine = small(tmp_path)
        await engine.network.start()
        await engine.attach()
        engine.crash()

    async def second_life() -> None:
        async with small(tmp_path, "172.30.0.2/29") as engine:
            await engine.network.restore([])
            await engine.network.wait_released()
            assert [(await engine.attach()).ip for _ in range(3)] == [f"172.30.0.{last}" for last in (1, 3, 4)]

    asyncio.run(first_life())
    asyncio.run(second_life())


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "00:00:00:00:00:00", "02:42", "x", "02:42:ac:11:00:0g"])
def test_bad_mac(mac: str, engine: Engine) -> None:
    """What is no host's MAC is refused."""

    async def scenario() -> None:
        async with engine:
            with pytest.raises(InvalidArgument, match=f"invalid MAC address {mac}"):
                await engine.network.attach(new_id(), EndpointRequest(mac=mac))

    asyncio.run(scenario())


def test_given_mac(engine: Engine) -> None:
    """--mac-address is obeyed."""

    async def scenario() -> None:
        async with engine:
            box = await engine.network.attach(new_id(), EndpointRequest(mac="02:AA:bb:00:00:01"))
            assert box.namespace_fd is not None
            with inside(box.namespace_fd), RouteSocket() as sock:
                link = sock.link("eth0")
                assert link is not None and link.mac == "02:aa:bb:00:00:01"

    asyncio.run(scenario())
