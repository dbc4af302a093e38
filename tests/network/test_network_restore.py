"""After a crash: what lives goes on, what is dead leaves nothing, and every verb can be repeated."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from network_world import (
    HOST_WAN,
    OUTSIDE,
    Engine,
    Outside,
    client_socket,
    delete_link,
    is_reachable,
    listen,
    talk,
)

from tare.errors import ResourceExhausted
from tare.kernel.netlink_route import RouteSocket
from tare.kernel.nftables import NFPROTO_BRIDGE, NftablesSocket, Transaction
from tare.network import port_guard, rules
from tare.network.records import EndpointRequest, NetworkRequest, PortRequest
from tare.values.ids import new_id

# A daemon's life in one script; TARE_FAULT kills it at a named point.
_LIFE = """
    import asyncio, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from network_world import Engine, delete_link
    from tare.network.rates import Rate
    from tare.network.records import EndpointRequest, NetworkRequest, PortRequest
    from tare.values.ids import new_id

    async def life():
        engine = Engine(Path(sys.argv[2]))
        await engine.network.start()
        await engine.network.restore([])
        box = await engine.attach(PortRequest(80, host_port=8080), PortRequest(81, host_port=8081))
        await engine.network.release(box.record.container_id)
        bound = await engine.network.attach(new_id(), EndpointRequest(container_name="bound", egress="none"))
        engine.network.set_egress(bound.record.container_id, "allow=192.0.2.0/24")
        await engine.network.set_rate(bound.record.container_id, bound.record.network_id, Rate(125_000, 32_768))
        await engine.network.set_network_egress(bound.record.network_id, "allow=192.0.2.0/24")
        delete_link(bound.record.link)
        await engine.network.mend()
        await engine.network.release(bound.record.container_id)
        await engine.network.create(NetworkRequest(name="apart", driver="macvlan"))

    asyncio.run(life())
"""
_POINTS = (
    "network.bridge.create",
    "network.bridge.up",
    "network.table.built",
    "network.restore.leases",
    "network.ports.reserve@2",
    "network.attach.recorded",
    "network.attach.connected",
    "network.release.unpublished",
    "network.release.forgotten",
    "network.guard.built",
    "network.egress.bound",
    "network.egress.recorded",
    "network.rate.recorded",
    "network.rate.link",
    "network.update.recorded",
    "network.repair.link",
    "network.parent.create",
)


def test_live_container_keeps_its_network(engine: Engine, outside: Outside, tmp_path: Path) -> None:
    """kill -9: an open connection goes on, the port stays published and held, release works in the next life."""

    async def first_life() -> tuple[str, int, str]:
        await engine.network.start()
        box = await engine.attach(PortRequest(80, host_port=8080))
        assert box.namespace_fd is not None
        return box.record.container_id, os.dup(box.namespace_fd), box.ip

    async def second_life(container_id: str, namespace_fd: int, ip: str) -> None:
        async with Engine(tmp_path) as again:
            await again.network.restore({container_id: 1})
            client.sendall(b"still there")
            assert accepted.recv(16) == b"still there"
            assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
            record = again.network.endpoint(container_id)
            assert record is not None and record.ip == ip
            with pytest.raises(ResourceExhausted, match="port is already allocated"):
                await again.attach(PortRequest(80, host_port=8080))
            with pytest.raises(OSError, match="Address already in use"):
                listen(None, 8080)
            assert (await again.attach()).ip != ip
            for sock in (client, accepted, server):
                sock.close()
            os.close(namespace_fd)
            await again.network.release(container_id)
            assert again.published() == 0

    container_id, namespace_fd, ip = asyncio.run(first_life())
    server = listen(namespace_fd, 80)
    client = socket.create_connection((HOST_WAN, 8080))
    accepted, _ = server.accept()
    engine.crash()
    asyncio.run(second_life(container_id, namespace_fd, ip))


def test_dead_container_is_cleaned_up(engine: Engine, tmp_path: Path) -> None:
    """A container that died together with the daemon has no endpoint, port or address afterwards."""

    async def first_life() -> None:
        await engine.network.start()
        await engine.attach(PortRequest(80, host_port=8080))

    async def second_life() -> None:
        async with Engine(tmp_path) as again:
            await again.network.restore([])
            assert again.network.endpoints() == []
            assert again.published() == 0
            await again.network.wait_released()
            assert (await again.attach(PortRequest(80, host_port=8080))).ip == "172.30.0.2"

    asyncio.run(first_life())
    engine.crash()
    asyncio.run(second_life())


def test_stray_link_is_removed(engine: Engine, tmp_path: Path) -> None:
    """A link that no record knows (its record was lost, its namespace is held) goes at the next restore."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach()
            assert box.namespace_fd is not None
            held = os.dup(box.namespace_fd)
            with engine.db.transaction() as tx:
                tx.run("DELETE FROM network_endpoints")
                tx.run("DELETE FROM network_leases WHERE link <> ''")
            await engine.network.restore([])
            assert engine.ports_of_bridge() == []
            os.close(held)
            await engine.network.release(box.record.container_id)

    asyncio.run(scenario())


@pytest.mark.parametrize("point", _POINTS)
def test_killed_at(point: str, host: None, tmp_path: Path) -> None:
    """Killed at this point, the engine comes up again, does the same, and leaves nothing."""
    command = [sys.executable, "-c", textwrap.dedent(_LIFE), str(Path(__file__).parent), str(tmp_path)]
    died = subprocess.run(command, env={**os.environ, "TARE_FAULT": f"{point}:kill"}, timeout=100, check=False)
    assert died.returncode == -signal.SIGKILL

    async def next_life() -> None:
        async with Engine(tmp_path) as again:
            await again.network.restore([])
            await again.network.wait_released()
            box = await again.attach(PortRequest(80, host_port=8080), PortRequest(81, host_port=8081))
            assert box.ip == "172.30.0.2"
            with listen(box.namespace_fd, 81) as server:
                assert talk(None, "127.0.0.1", 8081, server)
            await again.network.release(box.record.container_id)
            assert again.published() == 0
            assert again.network.endpoints() == []
            await again.network.wait_released()
            with RouteSocket() as sock:
                assert not any(link.name.startswith(("vr", "dm-")) for link in sock.links())

    asyncio.run(next_life())


def test_flushed_table_is_rebuilt(engine: Engine, outside: Outside) -> None:
    """After somebody deleted the table, repair brings it back, and publish and release bring it back by themselves."""

    def flush() -> None:
        transaction = Transaction("tn")
        transaction.delete_table()
        with NftablesSocket() as nft:
            nft.commit(transaction)

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, host_port=8080))
            with listen(box.namespace_fd, 80) as server:
                flush()
                assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)
                engine.network.repair()
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                flush()
                other = await engine.attach(PortRequest(80, host_port=8081))
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                flush()
                await engine.network.release(other.record.container_id)
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE

    asyncio.run(scenario())


def test_deleted_bridge_is_made_anew(engine: Engine) -> None:
    """Somebody deleted the bridge and switched forwarding off: repair plugs the containers into a new one."""

    async def scenario() -> None:
        async with engine:
            one, two = await engine.attach(PortRequest(80, host_port=8080)), await engine.attach()
            delete_link("tn0")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
            engine.network.repair()
            with listen(one.namespace_fd, 80) as server:
                assert talk(two.namespace_fd, one.ip, 80, server) == two.ip
                assert talk(None, "127.0.0.1", 8080, server) == "172.30.0.1"
                assert talk(one.namespace_fd, one.gateway, 8080, server) == "172.30.0.1"
            assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"

    asyncio.run(scenario())


def test_mend_puts_everything_right_and_says_what_it_was(engine: Engine) -> None:
    """After the ruleset was flushed, a bridge and a container's link deleted: `network repair` makes them anew, names
    them, and a container that was left alone keeps its connection; a second time finds nothing."""

    async def scenario() -> None:
        async with engine:
            made = await engine.network.create(NetworkRequest(name="own"))
            kept = await engine.attach()
            lost = await engine.network.attach(new_id(), EndpointRequest(mode="own", container_name="lost"))
            other = await engine.network.attach(new_id(), EndpointRequest(mode="own", container_name="other"))
            with listen(kept.namespace_fd, 80) as server, client_socket(None) as client:
                client.connect((kept.ip, 80))
                accepted, _ = server.accept()
                with accepted:
                    delete_link(lost.record.link)
                    delete_link(made.bridge_name)
                    assert engine.network._table is not None
                    engine.network._table.remove()
                    found = await engine.network.mend()
                    assert found == [
                        f"bridge {made.bridge_name} of network own",
                        "table inet tn",
                        "table bridge tn",
                        f"link of container {lost.record.container_id[:12]} to network own",
                    ]
                    assert await engine.network.mend() == []
                    client.sendall(b"still")
                    assert accepted.recv(16) == b"still"
            with listen(lost.namespace_fd, 80) as server:
                assert talk(other.namespace_fd, lost.ip, 80, server) == other.ip
                assert talk(None, lost.ip, 80, server) == made.gateway
            with listen(other.namespace_fd, 80) as server:
                assert talk(lost.namespace_fd, other.ip, 80, server) == lost.ip

    asyncio.run(scenario())


def test_rules_are_told_in_words(engine: Engine) -> None:
    """The listing is what the kernel has: published ports, the guard's members, and counters of what was dropped."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, host_port=8080), PortRequest(53, "udp", "127.0.0.1", 5353))
            rules, guard = engine.network.rules()
            elements = {item.name: item.elements for item in (*rules.sets, *guard.sets)}
            assert (rules.family, rules.name, rules.whole) == ("inet", "tn", True)
            assert elements["published_any"] == (f"tcp . 8080 → {box.ip} . 80",)
            assert elements["published"] == (f"udp . 127.0.0.1 . 5353 → {box.ip} . 53",)
            assert elements["bridges"] == ("tn0",)
            assert elements["macs"] == (f"{box.record.link} . {box.mac}",)
            assert [chain.name for chain in guard.chains] == ["ports"]
            assert all(text for table in (rules, guard) for chain in table.chains for text, _ in chain.rules)
            assert ("not published", 0) in next(c for c in rules.chains if c.name == "forward").rules

    asyncio.run(scenario())


CYCLES = int(os.environ.get("TARE_NETWORK_CYCLES", "25"))


def test_cycles_leave_nothing(engine: Engine) -> None:
    """Starts, connects, disconnects and ends, over and over (1,000 times with TARE_NETWORK_CYCLES=1000): afterwards no
    link, no element, no lease and no descriptor is more than before."""

    def standing() -> tuple[int, ...]:
        with NftablesSocket() as nft, RouteSocket() as sock:
            links = [link for link in sock.links() if link.kind == "veth"]
            guard = sum(len(nft.elements("tn", item.name, NFPROTO_BRIDGE)) for item in port_guard.SETS)
            table = sum(len(nft.elements("tn", item.name)) for item in rules.SETS)
        (leases,) = engine.db.all("SELECT count(*) AS n FROM network_leases")
        return len(links), guard, table, int(leases["n"]), len(os.listdir("/proc/self/fd"))

    async def scenario() -> None:
        async with engine:
            await engine.network.create(NetworkRequest(name="own", ipv6=True))
            await engine.network._pool.wait_full()
            before = standing()
            for number in range(CYCLES):
                port = PortRequest(80, host_port=8080)
                box = await engine.network.attach(
                    new_id(), EndpointRequest(container_name="box", ports=(port,), egress="none" if number % 3 else "")
                )
                made = (
                    await engine.network.connect(
                        box.record.container_id, EndpointRequest(mode="own", container_name="box", names=("box",))
                    )
                    if number % 2
                    else None
                )
                if made is not None and number % 4 == 1:
                    await engine.network.disconnect(box.record.container_id, made.network_id)
                await engine.network.release(box.record.container_id)
            await engine.network.wait_released()
            await engine.network._pool.wait_full()
            await engine.network._publishing.wait_forgotten()
            engine.network._publishing.egress_log.close()
            assert standing() == before

    asyncio.run(scenario())


def test_repair_beside_an_end(engine: Engine) -> None:
    """A container that ends, or leaves a network, while its lost link is made anew is let go; the others are mended."""

    async def scenario() -> None:
        async with engine:
            ends, stays = await engine.attach(), await engine.attach()
            for box in (ends, stays):
                delete_link(box.record.link)
            endpoints = engine.network._endpoints
            open_inside = endpoints._open_inside

            async def and_ends(namespace_fd: int, address: str, ipv6: bool) -> list[int]:
                opened = await open_inside(namespace_fd, address, ipv6)
                await engine.network.release(ends.record.container_id)
                return opened

            endpoints._open_inside = and_ends
            found = await engine.network.mend()
            assert found == [f"link of container {stays.record.container_id[:12]} to network bridge"]
            with RouteSocket() as sock:
                assert sock.link(ends.record.link) is None and sock.link(stays.record.link) is not None

    asyncio.run(scenario())


_TIGHTENED = """
    import asyncio, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from network_world import Engine
    from tare.network.records import EndpointRequest, NetworkRequest
    from tare.values.ids import new_id

    async def life():
        engine = Engine(Path(sys.argv[2]))
        await engine.network.start()
        for number, name in enumerate(("one", "two")):
            option = {"tare.network.egress": "allow=api.example,other.example"}
            network = await engine.network.create(NetworkRequest(name=name, options=option))
            request = EndpointRequest(mode=name, container_name=name, egress="all")
            box = await engine.network.attach(new_id(), request)
            engine.network._table.learn(box.record, "api.example", [f"203.0.113.{number}"], 3600)
        if sys.argv[3] == "container":
            engine.network.set_egress(box.record.container_id, "allow=other.example")
        else:
            await engine.network.set_network_egress(network.network_id, "allow=other.example")

    asyncio.run(life())
"""


@pytest.mark.parametrize(
    ("whose", "point"), [("container", "network.egress.recorded"), ("network", "network.update.recorded")]
)
def test_a_tighter_policy_shuts_the_old_ones_names_after_a_crash(
    host: None, whose: str, point: str, tmp_path: Path
) -> None:
    """kill -9 between a policy's change and the packet filter's: at the next start what only the old policy allowed is
    shut, while the names that another container has learned stay open."""
    command = [sys.executable, "-c", textwrap.dedent(_TIGHTENED), str(Path(__file__).parent), str(tmp_path), whose]
    died = subprocess.run(command, env={**os.environ, "TARE_FAULT": f"{point}:kill"}, timeout=100, check=False)
    assert died.returncode == -signal.SIGKILL

    def open_ways() -> set[bytes]:
        with NftablesSocket() as nft:
            return {element.key[4:] for element in nft.elements("tn", "egress_named")}

    kept, shut = socket.inet_aton("203.0.113.0"), socket.inet_aton("203.0.113.1")

    async def next_life() -> None:
        assert open_ways() == {kept, shut}
        async with Engine(tmp_path) as again:
            assert open_ways() == {kept}
            assert not any(record.stale_names for record in again.network.endpoints())
            await again.network.restore([])
            for network in again.network.networks():
                if not network.is_default:
                    await again.network.remove(network.network_id)

    asyncio.run(next_life())
