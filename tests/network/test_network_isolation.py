"""What tenants on one host can't do to each other, frame by frame; who may reach published ports; the host's word."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from network_world import (
    HOST_WAN,
    OUTSIDE,
    Engine,
    Outside,
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

from tare.errors import Forbidden, InvalidArgument
from tare.kernel.nftables import NFPROTO_BRIDGE, NftablesSocket
from tare.network.records import Endpoint, EndpointRequest, NetworkRequest, NetworkSettings, PortRequest
from tare.values.ids import new_id

BROADCAST = b"\xff" * 6
NOBODY = bytes.fromhex("020000001234")


def arp_frame(source_mac: bytes, said_mac: bytes, said_ip: str, wanted_ip: str, operation: int = 2) -> bytes:
    """An ARP message to all (RFC 826), from `source_mac`: "`said_ip` is at `said_mac`"."""
    ends = said_mac + socket.inet_aton(said_ip) + bytes(6) + socket.inet_aton(wanted_ip)
    return BROADCAST + source_mac + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + ends


@contextmanager
def all_frames(endpoint: Endpoint) -> Iterator[socket.socket]:
    """A container that listens to whatever its link brings, addressed to it or not."""
    with frame_socket(endpoint.namespace_fd, "eth0") as sniffer:
        sniffer.settimeout(0.3)
        sniffer.bind(("eth0", 3))  # ETH_P_ALL
        yield sniffer


def seen(sniffer: socket.socket, wanted: bytes) -> bool:
    """Whether a frame with these bytes in it arrives. Silence shows only by waiting."""
    while True:
        try:
            if wanted in sniffer.recv(2048):
                return True
        except TimeoutError:
            return False


async def join(engine: Engine, network: str, **wishes: object) -> Endpoint:
    request = EndpointRequest(mode=network, container_name="box", **wishes)  # type: ignore[arg-type]
    return await engine.network.attach(new_id(), request)


@pytest.mark.parametrize("forged", ["mac", "address", "arp", "arp-mac"])
def test_container_cannot_forge_a_neighbours_identity(engine: Engine, forged: str) -> None:
    """A frame with another's MAC or address, or an ARP message about another's, goes no further than the own port;
    the same frame with one's own identity arrives."""

    async def scenario() -> None:
        async with engine:
            villain, victim, third = [await engine.attach() for _ in range(3)]
            own, to = mac_bytes(villain), mac_bytes(victim)
            if forged == "mac":
                good = udp_frame(to, villain.ip, victim.ip, 9999, own)
                bad = udp_frame(to, villain.ip, victim.ip, 9999, mac_bytes(third))
            elif forged == "address":
                good = udp_frame(to, villain.ip, victim.ip, 9999, own)
                bad = udp_frame(to, third.ip, victim.ip, 9999, own)
            elif forged == "arp":
                good = arp_frame(own, own, villain.ip, victim.ip)
                bad = arp_frame(own, own, villain.gateway, victim.ip)
            else:
                good = arp_frame(own, own, "0.0.0.0", villain.ip, 1)
                bad = arp_frame(own, mac_bytes(third), villain.ip, victim.ip)
            with frame_socket(villain.namespace_fd, "eth0") as out, all_frames(victim) as sniffer:
                out.send(bad)
                assert not seen(sniffer, bad[6:34])
                out.send(good)
                assert seen(sniffer, good[6:34])

    asyncio.run(scenario())


def test_forged_mac_does_not_draw_a_neighbours_frames(engine: Engine) -> None:
    """The bridge learns nothing from ports: what is sent to a container goes on reaching it after somebody else has
    claimed its MAC."""

    async def scenario() -> None:
        async with engine:
            villain, victim = await engine.attach(), await engine.attach()
            with frame_socket(villain.namespace_fd, "eth0") as out:
                out.send(arp_frame(mac_bytes(victim), mac_bytes(victim), victim.ip, villain.gateway))
            with listen(victim.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                assert talk_udp(None, victim.ip, 53, server) == villain.gateway

    asyncio.run(scenario())


def test_container_cannot_overhear_its_neighbours(engine: Engine) -> None:
    """Two containers talk, and one sends to a MAC that nobody has: a third sees nothing of it on its link."""

    async def scenario() -> None:
        async with engine:
            one, two, spy = [await engine.attach() for _ in range(3)]
            with all_frames(spy) as sniffer, listen(two.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                assert talk_udp(one.namespace_fd, two.ip, 53, server) == one.ip
                with frame_socket(one.namespace_fd, "eth0") as out:
                    out.send(udp_frame(NOBODY, one.ip, two.ip, 53, mac_bytes(one)))
                assert not seen(sniffer, socket.inet_aton(one.ip) + socket.inet_aton(two.ip))

    asyncio.run(scenario())


def test_guard_can_be_left_off(engine: Engine) -> None:
    """On a network with tare.network.guard=false containers may use further addresses (a gateway's, a balancer's)."""

    async def scenario() -> None:
        async with engine:
            await engine.network.create(NetworkRequest(name="free", options={"tare.network.guard": "false"}))
            one, two = await join(engine, "free"), await join(engine, "free")
            frame = udp_frame(mac_bytes(two), "203.0.113.9", two.ip, 53, mac_bytes(one))
            with frame_socket(one.namespace_fd, "eth0") as out, all_frames(two) as sniffer:
                out.send(frame)
                assert seen(sniffer, frame[6:34])
            with pytest.raises(InvalidArgument, match=r"tare\.network\.guard"):
                await engine.network.create(NetworkRequest(name="odd", options={"tare.network.guard": "perhaps"}))

    asyncio.run(scenario())


def test_macs_are_unique_on_a_network(engine: Engine) -> None:
    """A neighbour's MAC or the bridge's can't be asked for; a container whose usual one is taken gets another."""

    async def scenario() -> None:
        async with engine:
            await engine.network.create(NetworkRequest(name="own"))
            first = await join(engine, "own")
            for taken in (first.mac, first.mac.upper(), "02:42:" + socket.inet_aton(first.gateway).hex(":")):
                with pytest.raises(Forbidden, match=r"MAC address .* is already in use on network own"):
                    await join(engine, "own", mac=taken)
            usual = "02:42:" + socket.inet_aton(first.ip[: first.ip.rindex(".")] + ".4").hex(":")
            claims = await join(engine, "own", mac=usual)
            heir = await join(engine, "own")
            assert claims.mac == usual and heir.mac != usual and heir.mac.startswith("02:43:")
            with listen(heir.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                assert talk_udp(claims.namespace_fd, heir.ip, 53, server) == claims.ip

    asyncio.run(scenario())


def test_guard_comes_back_after_a_flush_and_forgets_who_left(engine: Engine) -> None:
    """The table of the guard is rebuilt with the other, and holds nobody after the last container left."""

    async def scenario() -> None:
        async with engine:
            table = engine.network._table
            assert table is not None
            villain, victim = await engine.attach(), await engine.attach()
            with NftablesSocket() as nft:
                table.guard.remove()
                assert not table.is_whole()
                for _ in range(200):
                    await asyncio.sleep(0.01)
                    if table.is_whole():
                        break
                bad = udp_frame(mac_bytes(victim), "172.30.0.77", victim.ip, 9999, mac_bytes(villain))
                with frame_socket(villain.namespace_fd, "eth0") as out, all_frames(victim) as sniffer:
                    out.send(bad)
                    assert not seen(sniffer, bad[6:34])
                for box in (villain, victim):
                    await engine.network.release(box.record.container_id)
                for name in ("ports", "macs", "addresses"):
                    assert nft.elements("tn", name, NFPROTO_BRIDGE) == []

    asyncio.run(scenario())


def test_networks_are_apart_by_whichever_address(engine: Engine, outside: Outside) -> None:
    """From another network neither a container's address answers, nor the network's bridge address, nor a port
    published there; what is published is reached by the host's own address."""

    async def scenario() -> None:
        async with engine:
            await engine.network.create(NetworkRequest(name="one"))
            await engine.network.create(NetworkRequest(name="two"))
            mine = await join(engine, "one")
            theirs = await join(engine, "two", ports=(PortRequest(80, host_port=8080),))
            with listen(theirs.namespace_fd, 80) as server, listen(None, 7777) as service:
                assert not is_reachable(mine.namespace_fd, theirs.ip, 80)
                assert not is_reachable(mine.namespace_fd, theirs.gateway, 8080)
                assert not is_reachable(mine.namespace_fd, theirs.gateway, 7777)
                assert talk(mine.namespace_fd, mine.gateway, 7777, service) == mine.ip
                assert talk(mine.namespace_fd, HOST_WAN, 8080, server)

    asyncio.run(scenario())


def test_only_allowed_addresses_reach_published_ports(host: None, outside: Outside, tmp_path: Path) -> None:
    """--publish-allow names the subnets whose addresses may reach published ports; the host may always."""

    async def scenario(allow: str, *, reaches: bool) -> None:
        settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", publish_allow=(allow,))
        engine = Engine(tmp_path, settings)
        async with engine:
            box = await engine.attach(PortRequest(80, host_port=8080))
            with listen(box.namespace_fd, 80) as server:
                if reaches:
                    assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                else:
                    assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)
                assert talk(None, "127.0.0.1", 8080, server)
            assert engine.network._table is not None and engine.network._table.is_whole()

    asyncio.run(scenario("203.0.113.0/24", reaches=False))
    asyncio.run(scenario("198.51.100.0/30", reaches=True))


@pytest.mark.skipif(shutil.which("nft") is None, reason="no nft program to play the administrator")
@pytest.mark.parametrize("priority", [-10, 0, 10])
def test_a_hosts_drop_is_final(engine: Engine, outside: Outside, priority: int) -> None:
    """What a host's own table drops on the way to a container stays dropped, whether its chain comes before Tare's,
    beside it or behind it (moby#22054): an accept ends only the chain that it stands in."""
    rules = f"""
        table inet firewall {{
            chain forward {{
                type filter hook forward priority {priority}; policy accept;
                ip saddr {OUTSIDE} meta l4proto tcp ct original proto-dst 8080 drop
            }}
        }}
    """

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, host_port=8080), PortRequest(80, host_port=8081))
            with listen(box.namespace_fd, 80) as server:
                subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
                try:
                    assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)
                    assert talk(outside.namespace_fd, HOST_WAN, 8081, server) == OUTSIDE
                finally:
                    subprocess.run(["nft", "delete", "table", "inet", "firewall"], check=True)
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE

    asyncio.run(scenario())


@pytest.mark.skipif(shutil.which("nft") is None, reason="no nft program to play the administrator")
def test_an_input_chain_that_guards_no_published_port_is_named(host: None, tmp_path: Path) -> None:
    """Who trusts in an input chain that drops by default is told that published ports don't pass it, until it is said
    who may reach them."""
    rules = "table inet firewall { chain in { type filter hook input priority 0; policy drop; iif lo accept; }; }"

    async def scenario(*allow: str) -> list[str]:
        settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", publish_allow=allow)
        async with Engine(tmp_path, settings) as engine:
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
            try:
                return engine.network.warnings()
            finally:
                subprocess.run(["nft", "delete", "table", "inet", "firewall"], check=True)

    (warning,) = asyncio.run(scenario())
    assert warning.startswith("table firewall, chain in drops packets to this host") and "--publish-allow" in warning
    assert asyncio.run(scenario("10.0.0.0/8")) == []


def test_icc_off_keeps_neighbours_apart(host: None, tmp_path: Path) -> None:
    """com.docker.network.bridge.enable_icc=false: neighbours hear nothing of each other, not even broadcasts; the host
    reaches both."""

    async def scenario() -> None:
        engine = Engine(tmp_path)
        async with engine:
            await engine.network.create(
                NetworkRequest(name="strangers", options={"com.docker.network.bridge.enable_icc": "false"})
            )
            one, two = await join(engine, "strangers"), await join(engine, "strangers")
            with listen(two.namespace_fd, 80) as server, all_frames(two) as sniffer:
                assert not is_reachable(one.namespace_fd, two.ip, 80)
                assert not seen(sniffer, mac_bytes(one))
                assert talk(None, two.ip, 80, server)

    asyncio.run(scenario())


def test_forged_frames_do_not_reach_the_host_either(engine: Engine) -> None:
    """A datagram with a foreign source address gets neither to the host nor out of it."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach()
            with listen(None, 9999, socket.SOCK_DGRAM) as server, frame_socket(box.namespace_fd, "eth0") as out:
                out.send(udp_frame(link_mac("tn0"), "172.30.0.200", box.gateway, 9999, mac_bytes(box)))
                assert is_silent(server)

    asyncio.run(scenario())
