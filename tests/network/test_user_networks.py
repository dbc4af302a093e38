"""Networks of the user's own: made, joined, left, taken away; what leads in and out of them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from network_world import HOST_WAN, OUTSIDE, Engine, Outside, inside, is_reachable, listen, talk

from tare.errors import Conflict, Forbidden, InvalidArgument, NotFound, ResourceExhausted, Unavailable, Unsupported
from tare.kernel.netlink_route import RouteSocket
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
from tare.values.ids import new_id


def request(name: str, subnet: str = "", **options: object) -> NetworkRequest:
    addresses = (AddressOptions(subnet=subnet),) if subnet else ()
    return NetworkRequest(name=name, addresses=addresses, **options)  # type: ignore[arg-type]


async def join(engine: Engine, *networks: str, ports: tuple[PortRequest, ...] = (), ip: str = "") -> Endpoint:
    wanted = [EndpointRequest(mode=name, container_name="box", ip=ip) for name in networks]
    wanted[0] = EndpointRequest(mode=networks[0], container_name="box", ports=ports, ip=ip, names=("box",))
    return await engine.network.attach(new_id(), *wanted)


def links_inside(endpoint: Endpoint) -> dict[str, str]:
    """Name and address of each link of a container but the loopback."""
    assert endpoint.namespace_fd is not None
    with inside(endpoint.namespace_fd), RouteSocket() as sock:
        names = {link.ifindex: link.name for link in sock.links()}
        return {names[item.ifindex]: str(item.interface) for item in sock.addresses() if names[item.ifindex] != "lo"}


def default_gateway(endpoint: Endpoint) -> str:
    """Where a container's default route leads; "" if it has none."""
    assert endpoint.namespace_fd is not None
    with inside(endpoint.namespace_fd), RouteSocket() as sock:
        return next((str(item.gateway) for item in sock.routes() if item.destination is None), "")


def test_made_and_taken_away(engine: Engine) -> None:
    """A network has a bridge named for its id while it exists, and none after it was removed."""

    async def scenario() -> None:
        async with engine:
            made = await engine.network.create(request("one", labels={"a": "b"}))
            assert made.bridge_name == f"br-{made.network_id[:12]}" and made.labels == {"a": "b"}
            assert [record.name for record in engine.network.networks()] == ["bridge", "host", "none", "one"]
            with RouteSocket() as sock:
                link = sock.link(made.bridge_name)
                assert link is not None and link.is_up
                assert [item.interface for item in sock.addresses(link.ifindex)] == [made.interface]
                await engine.network.remove(made.network_id)
                assert sock.link(made.bridge_name) is None
            with pytest.raises(NotFound, match=f"network {made.network_id} not found"):
                await engine.network.remove(made.network_id)

    asyncio.run(scenario())


def test_subnets_come_from_the_pools_in_turn(host: None, tmp_path: Path) -> None:
    """Each network gets the first pool that neither another network nor a route of the host has."""
    pools = ("10.1.0.0/24", "10.2.0.0/24", "198.51.100.0/24", "10.3.0.0/24")
    settings = NetworkSettings(bridge_name="tn0", table="tn", address_pools=pools)

    async def scenario() -> None:
        async with Engine(tmp_path, settings) as engine:
            world = Outside()
            found = [(await engine.network.create(request(name))).subnet for name in ("one", "two")]
            assert found == ["10.2.0.0/24", "10.3.0.0/24"]
            with pytest.raises(ResourceExhausted, match="all predefined address pools have been fully subnetted"):
                await engine.network.create(request("three"))
            world.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("wanted", "error", "text"),
    [
        (request("bridge"), Forbidden, "operation is not permitted on predefined bridge network"),
        (request("old"), Conflict, "network with name old already exists"),
        (request(""), InvalidArgument, "invalid name: name is empty"),
        (request("a/b"), InvalidArgument, "invalid network name"),
        (request("new", driver="host"), Forbidden, 'only one instance of "host" network is allowed'),
        (request("new", driver="nosuch"), NotFound, 'plugin "nosuch" not found'),
        (request("new", driver="overlay"), Unavailable, "not a swarm manager"),
        (request("new", address_driver="nosuch"), NotFound, 'plugin "nosuch" not found'),
        (request("new", "10.9.0.128/25"), Forbidden, "Pool overlaps with other one on this address space"),
        (request("new", "172.30.0.0/16"), Forbidden, "Pool overlaps with other one on this address space"),
        (request("new", "junk"), InvalidArgument, "invalid subnet junk: invalid CIDR block notation"),
        (request("new", "10.8.0.1/24"), InvalidArgument, "invalid subnet 10.8.0.1/24: it should be 10.8.0.0/24"),
        (request("new", "10.8.0.0/31"), InvalidArgument, "prefix"),
        (request("new", options={"com.docker.network.driver.mtu": "x"}), InvalidArgument, "failed to parse"),
        (request("new", options={"com.docker.network.driver.mtu": "9"}), InvalidArgument, "between 68 and 65535"),
        (request("new", options={"com.docker.network.bridge.enable_icc": "x"}), InvalidArgument, "ParseBool"),
        (request("new", options={"com.docker.network.bridge.name": "a/b"}), InvalidArgument, "bridge name"),
        (request("new", options={"com.docker.network.bridge.name": "tn0"}), Forbidden, "have same bridge name"),
        (request("new", options={"com.docker.network.bridge.trusted": "1"}), Unsupported, "trusted"),
        (
            NetworkRequest(name="new", addresses=(AddressOptions(subnet="10.8.0.0/24", gateway="10.9.0.1"),)),
            InvalidArgument,
            "invalid gateway 10.9.0.1: parent subnet 10.8.0.0/24 doesn't contain this address",
        ),
        (
            NetworkRequest(name="new", addresses=(AddressOptions(subnet="10.8.0.0/24", gateway="10.8.0.255"),)),
            Forbidden,
            "failed to allocate gateway (10.8.0.255): Address already in use",
        ),
        (
            NetworkRequest(name="new", addresses=(AddressOptions(subnet="10.8.0.0/24", ip_range="10.9.0.0/25"),)),
            InvalidArgument,
            "invalid ip-range 10.9.0.0/25: parent subnet 10.8.0.0/24 doesn't contain ip-range",
        ),
    ],
    ids=str,
)
def test_refused(engine: Engine, wanted: NetworkRequest, error: type[Exception], text: str) -> None:
    """What can't be made is refused with Docker's text, and nothing of it is left."""

    async def scenario() -> None:
        async with engine:
            old = await engine.network.create(request("old", "10.9.0.0/24"))
            with pytest.raises(error, match=re.escape(text)):
                await engine.network.create(wanted)
            assert len(engine.network.networks()) == 4
            await engine.network.remove(old.network_id)

    asyncio.run(scenario())


def test_failure_after_the_record_leaves_nothing(engine: Engine) -> None:
    """A bridge that can't be made (a link of another kind has its name) takes the network's record with it."""

    async def scenario() -> None:
        world = Outside()
        async with engine:
            with pytest.raises(Conflict, match="isn't a bridge"):
                await engine.network.create(request("one", options={"com.docker.network.bridge.name": "wan0"}))
            assert len(engine.network.networks()) == 3
            with RouteSocket() as sock:
                assert sock.link("wan0") is not None
        world.close()

    asyncio.run(scenario())


def test_addresses(engine: Engine) -> None:
    """Containers get addresses of the ip-range but the gateway's and reserved ones; a chosen one may lie outside."""
    addresses = AddressOptions(subnet="10.7.0.0/24", ip_range="10.7.0.64/30", aux={"printer": "10.7.0.65"})

    async def scenario() -> None:
        async with engine:
            made = await engine.network.create(NetworkRequest(name="one", addresses=(addresses,)))
            assert made.gateway == "10.7.0.64"
            assert [(await join(engine, "one")).ip for _ in range(2)] == ["10.7.0.66", "10.7.0.67"]
            with pytest.raises(ResourceExhausted, match="no available IPv4 addresses"):
                await join(engine, "one")
            fixed = await join(engine, "one", ip="10.7.0.9")
            assert links_inside(fixed) == {"eth0": "10.7.0.9/24"} and fixed.mac == "02:42:0a:07:00:09"
            for taken in ("10.7.0.9", "10.7.0.64", "10.7.0.65", "10.7.0.255"):
                with pytest.raises(Forbidden, match="Address already in use"):
                    await join(engine, "one", ip=taken)
            with pytest.raises(InvalidArgument, match="no configured subnet contains IP address"):
                await join(engine, "one", ip="10.8.0.9")
            await engine.network.release(fixed.record.container_id)
            assert (await join(engine, "one", ip="10.7.0.9")).ip == "10.7.0.9"

    asyncio.run(scenario())


def test_address_of_no_configured_subnet(engine: Engine) -> None:
    """An address can be asked for only where the user chose the subnet, as with Docker."""

    async def scenario() -> None:
        async with engine:
            made = await engine.network.create(request("one"))
            with pytest.raises(InvalidArgument, match="only when connecting to networks with user configured subnets"):
                await join(engine, "one", ip=str(made.interface.ip + 9))

    asyncio.run(scenario())


def test_two_networks_are_apart(engine: Engine) -> None:
    """Containers of one network reach each other; those of another don't, by whichever address."""

    async def scenario() -> None:
        async with engine:
            for name in ("one", "two"):
                await engine.network.create(request(name))
            box, friend, stranger = [await join(engine, name) for name in ("one", "one", "two")]
            default = await engine.attach()
            with listen(box.namespace_fd, 80) as server:
                assert talk(friend.namespace_fd, box.ip, 80, server) == friend.ip
                assert talk(None, box.ip, 80, server) == box.gateway
                assert not is_reachable(stranger.namespace_fd, box.ip, 80)
                assert not is_reachable(default.namespace_fd, box.ip, 80)

    asyncio.run(scenario())


def test_out_and_in(engine: Engine, outside: Outside) -> None:
    """What a container sends out bears the host's address; its published port is reached from outside."""

    async def scenario() -> None:
        async with engine:
            await engine.network.create(request("one"))
            box = await join(engine, "one", ports=(PortRequest(80, host_port=8080),))
            with listen(outside.namespace_fd, 80) as far, listen(box.namespace_fd, 80) as server:
                assert talk(box.namespace_fd, OUTSIDE, 80, far) == HOST_WAN
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                assert talk(None, "127.0.0.1", 8080, server) == box.gateway
                assert talk(box.namespace_fd, HOST_WAN, 8080, server) == box.gateway

    asyncio.run(scenario())


def test_internal(engine: Engine, outside: Outside) -> None:
    """An internal network leads nowhere and nothing leads into it, not even a published port; the host is beside it."""

    async def scenario() -> None:
        async with engine:
            made = await engine.network.create(request("one", internal=True))
            box = await join(engine, "one", ports=(PortRequest(80, host_port=8080),))
            friend, other = await join(engine, "one"), await engine.attach()
            assert default_gateway(box) == "" and engine.published() == 0
            with (
                inside(box.namespace_fd or 0),
                RouteSocket() as sock,
            ):  # a container with rights of its own tries harder
                from tare.kernel.netlink_route import new_default_route

                sock.execute((new_default_route(made.interface.ip),))
            outside.route_through_host()
            with listen(outside.namespace_fd, 80) as far, listen(box.namespace_fd, 80) as server:
                assert not is_reachable(box.namespace_fd, OUTSIDE, 80)
                assert not is_reachable(outside.namespace_fd, box.ip, 80)
                assert not is_reachable(other.namespace_fd, box.ip, 80)
                assert talk(friend.namespace_fd, box.ip, 80, server) == friend.ip
                assert talk(None, box.ip, 80, server) == made.gateway
                far.close()

    asyncio.run(scenario())


def test_options_of_the_bridge(engine: Engine) -> None:
    """enable_icc=false keeps containers apart; mtu and prefix are the links' inside; the name is the bridge's."""
    options = {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.name": "tnbr9",
        "com.docker.network.driver.mtu": "1400",
        "com.docker.network.container_iface_prefix": "lan",
    }

    async def scenario() -> None:
        async with engine:
            made = await engine.network.create(request("one", options=options))
            one, two = await join(engine, "one"), await join(engine, "one")
            with listen(one.namespace_fd, 80):
                assert not is_reachable(two.namespace_fd, one.ip, 80)
            assert list(links_inside(one)) == ["lan0"]
            with inside(one.namespace_fd or 0), RouteSocket() as sock:
                link = sock.link("lan0")
                assert link is not None and link.mtu == 1400
            with RouteSocket() as sock:
                assert sock.link("tnbr9") is not None
            for box in (one, two):
                await engine.network.release(box.record.container_id)
            await engine.network.remove(made.network_id)

    asyncio.run(scenario())


def test_in_use(engine: Engine) -> None:
    """A network with a container is not removed; the error names it. After the end it is, at once."""

    async def scenario() -> None:
        async with engine:
            made = await engine.network.create(request("one"))
            box = await join(engine, "one")
            with pytest.raises(Forbidden, match=r'network one has active endpoints \(name:"box" id:"\w{12}"\)'):
                await engine.network.remove(made.network_id)
            await engine.network.release(box.record.container_id)
            await engine.network.remove(made.network_id)
            assert (await engine.network.create(request("one"))).network_id != made.network_id

    asyncio.run(scenario())


def test_several_networks_at_once(engine: Engine, outside: Outside) -> None:
    """eth0, eth1 … in the order asked for; the highest priority, then the first name leads out and has the ports."""

    async def scenario() -> None:
        async with engine:
            for name in ("beta", "alpha"):
                await engine.network.create(request(name))
            await engine.network.create(request("aaa", internal=True))
            box = await join(engine, "beta", "aaa", "alpha", ports=(PortRequest(80, host_port=8080),))
            assert [record.inside for record in box.records] == ["eth0", "eth1", "eth2"]
            assert [record.network for record in box.records if record.ports] == ["alpha"]
            assert default_gateway(box) == box.records[2].gateway
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
            wanted = (EndpointRequest(mode="alpha"), EndpointRequest(mode="beta", priority=5))
            chosen = await engine.network.attach(new_id(), *wanted)
            assert default_gateway(chosen) == chosen.records[1].gateway
            with pytest.raises(Forbidden, match="already exists"):
                await join(engine, "alpha", "alpha")

    asyncio.run(scenario())


def test_connect_and_disconnect(engine: Engine, outside: Outside) -> None:
    """A live container joins and leaves networks; default route and published port go where they belong each time."""

    async def scenario() -> None:
        async with engine:
            for name in ("one", "two"):
                await engine.network.create(request(name))
            box = await engine.attach(PortRequest(80, host_port=8080))
            container_id = box.record.container_id
            friend = await join(engine, "one")
            record = await engine.network.connect(container_id, EndpointRequest(mode="one"))
            assert list(links_inside(box)) == ["eth0", "eth1"] and default_gateway(box) == box.gateway
            with listen(box.namespace_fd, 80) as server:
                assert talk(friend.namespace_fd, record.ip, 80, server) == friend.ip
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                await engine.network.disconnect(container_id, box.record.network_id)
                assert list(links_inside(box)) == ["eth1"] and default_gateway(box) == record.gateway
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                first = await engine.network.connect(container_id, EndpointRequest(mode="two", priority=1))
                assert first.inside == "eth0" and default_gateway(box) == first.gateway
                assert [item.network for item in engine.network.endpoints_of(container_id) if item.ports] == ["two"]
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                for item in engine.network.endpoints_of(container_id):
                    await engine.network.disconnect(container_id, item.network_id)
            assert links_inside(box) == {} and default_gateway(box) == "" and engine.published() == 0
            with pytest.raises(Conflict, match="is not running"):
                await engine.network.connect(new_id(), EndpointRequest(mode="one"))

    asyncio.run(scenario())


def test_ports_of_a_live_container(engine: Engine, outside: Outside) -> None:
    """Ports are published and taken back while a container runs; an open connection goes on; all or none."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, host_port=8080))
            container_id = box.record.container_id
            with listen(box.namespace_fd, 80) as server:
                engine.network.publish(container_id, (PortRequest(80, host_port=8081), PortRequest(80)))
                assert talk(outside.namespace_fd, HOST_WAN, 8081, server) == OUTSIDE
                assert engine.published() == 3
                with pytest.raises(ResourceExhausted, match="port is already allocated"):
                    engine.network.publish(
                        container_id, (PortRequest(80, host_port=8082), PortRequest(80, host_port=8080))
                    )
                assert engine.published() == 3

                def is_gone(port: PortBinding) -> bool:
                    return port.host_port != 8081

                assert engine.network.unpublish(container_id, is_gone) == 4  # on IPv6, too
                assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)
                assert talk(outside.namespace_fd, HOST_WAN, 8081, server) == OUTSIDE
                listen(None, 8080).close()

    asyncio.run(scenario())


# A daemon's life in one script; TARE_FAULT kills it at a named point.
_LIFE = """
    import asyncio, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from network_world import Engine
    from tare.network.records import EndpointRequest, NetworkRequest, PortRequest
    from tare.values.ids import new_id

    async def life():
        engine = Engine(Path(sys.argv[2]))
        await engine.network.start()
        await engine.network.restore([])
        made = await engine.network.create(NetworkRequest(name="one"))
        box = await engine.attach(PortRequest(80, host_port=8080))
        id = box.record.container_id
        engine.network.publish(id, (PortRequest(81, host_port=8081),))
        await engine.network.connect(id, EndpointRequest(mode="one", priority=1))
        await engine.network.disconnect(id, made.network_id)
        engine.network.unpublish(id, lambda port: True)
        await engine.network.release(id)
        await engine.network.remove(made.network_id)

    asyncio.run(life())
"""
_POINTS = (
    "network.create.recorded",
    "network.create.bridge",
    "network.create.settled",
    "network.publish.recorded",
    "network.unpublish.recorded",
    "network.ports.moved",
    "network.ports.moved@2",
    "network.attach.connected@2",
    "network.connect.joined",
    "network.names.redirected",
    "network.disconnect.left",
    "network.remove.recorded",
    "network.remove.links",
)


@pytest.mark.parametrize("point", _POINTS)
def test_killed_at(point: str, host: None, tmp_path: Path) -> None:
    """Killed at this point, the engine comes up again, every verb succeeds when repeated, and nothing is left."""
    command = [sys.executable, "-c", textwrap.dedent(_LIFE), str(Path(__file__).parent), str(tmp_path)]
    died = subprocess.run(command, env={**os.environ, "TARE_FAULT": f"{point}:kill"}, timeout=100, check=False)
    assert died.returncode == -signal.SIGKILL

    async def next_life() -> None:
        async with Engine(tmp_path) as again:
            await again.network.restore([])
            await again.network.wait_released()
            assert again.network.endpoints() == [] and again.published() == 0
            for record in again.network.networks():
                if record.name == "one":
                    await again.network.remove(record.network_id)
            await again.network.create(request("one"))
            box = await join(again, "one", ports=(PortRequest(80, host_port=8080),))
            with listen(box.namespace_fd, 80) as server:
                assert talk(None, "127.0.0.1", 8080, server)

    asyncio.run(next_life())


def test_live_container_is_taken_up_again(engine: Engine, outside: Outside, tmp_path: Path) -> None:
    """kill -9: the next process repairs a deleted bridge, and connects and disconnects the container as before."""

    async def first_life() -> Endpoint:
        await engine.network.start()
        await engine.network.create(request("one"))
        box = await join(engine, "one", ports=(PortRequest(80, host_port=8080),))
        return box

    async def second_life(container_id: str, pid: int, fd: int) -> None:
        async with Engine(tmp_path) as again:
            await again.network.restore({container_id})
            await again.network.resume(container_id, pid)
            with listen(fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                two = await again.network.create(request("two"))
                await again.network.connect(container_id, EndpointRequest(mode="two", priority=1))
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                await again.network.disconnect(container_id, two.network_id)
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
            os.close(fd)
            keeper.kill()
            keeper.wait()

    box = asyncio.run(first_life())
    assert box.namespace_fd is not None
    fd = os.dup(box.namespace_fd)
    with inside(fd):
        keeper = subprocess.Popen(["sleep", "100"])
    bridge_name = next(record for record in engine.network.networks() if record.name == "one").bridge_name
    engine.crash()
    with RouteSocket() as sock:
        from tare.kernel.netlink_route import delete_link

        sock.execute((delete_link(bridge_name),))
    asyncio.run(second_life(box.record.container_id, keeper.pid, fd))


def test_records_of_before() -> None:
    """A network that was stored before users had their own is read as it was meant."""
    old = {"network_id": "a" * 64, "name": "bridge", "driver": "bridge", "created_ns": 1, "subnet": "10.0.0.0/24"}
    record = msgspec.json.decode(msgspec.json.encode(old), type=NetworkRecord)
    assert record.is_default and not record.unsettled and not record.internal and record.inside_prefix == "eth"
