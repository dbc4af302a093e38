"""Egress policies: what a sandbox may send to, by subnet, port and name; what it may not is rejected and told."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dnslib import RR, A, DNSRecord
from hypothesis import given
from hypothesis import strategies as st
from network_world import (
    DEADLINE_S,
    HOST_WAN,
    OUTSIDE,
    Engine,
    Outside,
    client_socket,
    is_reachable,
    listen,
    talk,
    talk_udp,
)

from tare.errors import InvalidArgument, Unsupported
from tare.kernel.netlink_log import LoggedPacket
from tare.kernel.nftables import NftablesSocket
from tare.network.egress import allowed_subnets, both, named_ports, parse_policy
from tare.network.records import Endpoint, EndpointRequest, NetworkRequest, NetworkSettings, PortRequest
from tare.values.ids import new_id


async def sandbox(engine: Engine, egress: str, network: str = "bridge", **wishes: object) -> Endpoint:
    wish = EndpointRequest(mode=network, container_name="box", egress=egress, **wishes)  # type: ignore[arg-type]
    return await engine.network.attach(new_id(), wish)


def reaches(box: Endpoint, server: socket.socket, address: str) -> bool:
    """Whether a connection to a server comes about; what is rejected fails at once."""
    if not is_reachable(box.namespace_fd, address, server.getsockname()[1], timeout=2.0):
        return False
    server.accept()[0].close()
    return True


@pytest.mark.parametrize(
    ("egress", "first", "second"),
    [
        ("", True, True),
        ("all", True, True),
        ("none", False, False),
        (f"allow={OUTSIDE}", True, True),
        ("allow=198.51.100.0/24", True, True),
        (f"allow={OUTSIDE}:81", True, False),
        (f"allow={OUTSIDE}:81,198.51.100.0/24:82,203.0.113.0/24", True, True),
        ("allow=203.0.113.0/24,2001:db8::/32", False, False),
        (f"allow={HOST_WAN}", False, False),
    ],
)
def test_policy_bounds_what_leaves(engine: Engine, outside: Outside, egress: str, first: bool, second: bool) -> None:
    """Ports 81 and 82 of another machine answer as the policy says, over TCP; answers to who comes from outside and
    what goes to neighbours are no business of it."""

    async def scenario() -> None:
        async with engine:
            box = await sandbox(engine, egress, ports=(PortRequest(80, host_port=8080),))
            neighbour = await engine.attach()
            with listen(outside.namespace_fd, 81) as one, listen(outside.namespace_fd, 82) as two:
                assert (reaches(box, one, OUTSIDE), reaches(box, two, OUTSIDE)) == (first, second)
                assert reaches(neighbour, one, OUTSIDE)
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                assert talk(neighbour.namespace_fd, box.ip, 80, server) == neighbour.ip
            with listen(neighbour.namespace_fd, 80) as server:
                assert talk(box.namespace_fd, neighbour.ip, 80, server) == box.ip
            with listen(None, 83) as service:
                open_to_host = egress in ("", "all", "allow=198.51.100.0/24", f"allow={HOST_WAN}")
                assert reaches(box, service, HOST_WAN) == open_to_host

    asyncio.run(scenario())


def test_policy_of_a_running_container_changes_at_once(engine: Engine, outside: Outside) -> None:
    """A tighter policy cuts a connection that is open, a wider one lets it go on; nothing is left after the end."""

    async def scenario() -> None:
        async with engine:
            box = await sandbox(engine, "")
            with listen(outside.namespace_fd, 81) as server, client_socket(box.namespace_fd) as client:
                client.connect((OUTSIDE, 81))
                accepted, _ = server.accept()
                with accepted:
                    accepted.settimeout(0.3)
                    engine.network.set_egress(box.record.container_id, "none")
                    client.sendall(b"cut")
                    with pytest.raises(TimeoutError):
                        accepted.recv(16)
                    assert not reaches(box, server, OUTSIDE)
                    engine.network.set_egress(box.record.container_id, f"allow={OUTSIDE}")
                    accepted.settimeout(DEADLINE_S)
                    assert accepted.recv(16) == b"cut"
            with pytest.raises(InvalidArgument, match="invalid egress policy"):
                engine.network.set_egress(box.record.container_id, "some")
            await engine.network.release(box.record.container_id)
            with NftablesSocket() as nft:
                assert nft.elements("tn", "egress_bound") == nft.elements("tn", "egress_any") == []

    asyncio.run(scenario())


def test_networks_policy_bounds_all_in_it_and_the_containers_too(engine: Engine, outside: Outside) -> None:
    """What leaves has to be allowed by both; the policy holds after a flush and for the next process of the engine."""

    async def scenario() -> None:
        async with engine:
            options = {"tare.network.egress": "allow=198.51.100.0/24:81,198.51.100.0/24:82"}
            await engine.network.create(NetworkRequest(name="own", options=options))
            plain = await sandbox(engine, "", "own")
            narrow = await sandbox(engine, f"allow={OUTSIDE}:82,203.0.113.0/24", "own")
            with (
                listen(outside.namespace_fd, 81) as one,
                listen(outside.namespace_fd, 82) as two,
                listen(outside.namespace_fd, 83) as three,
            ):
                for _ in range(2):
                    found = [[reaches(box, server, OUTSIDE) for server in (one, two, three)] for box in (plain, narrow)]
                    assert found == [[True, True, False], [False, True, False]]
                    table = engine.network._table
                    assert table is not None and table.is_whole()
                    table.remove()
                    assert "table inet tn" in await engine.network.mend()
            with pytest.raises(InvalidArgument, match="invalid egress"):
                await engine.network.create(NetworkRequest(name="odd", options={"tare.network.egress": "never"}))

    asyncio.run(scenario())


def test_published_ports_are_allowed_by_the_address_that_is_asked_for(engine: Engine, outside: Outside) -> None:
    """What another network publishes is reached by the host's address, if the policy names that: not by what the
    packet filter makes of it."""

    async def scenario() -> None:
        async with engine:
            for name in ("mine", "theirs"):
                await engine.network.create(NetworkRequest(name=name))
            server_box = await sandbox(engine, "", "theirs", ports=(PortRequest(80, host_port=8080),))
            allowed = await sandbox(engine, f"allow={HOST_WAN}:8080", "mine")
            wrong = await sandbox(engine, f"allow={server_box.ip},{HOST_WAN}:80", "mine")
            with listen(server_box.namespace_fd, 80) as server:
                assert talk(allowed.namespace_fd, HOST_WAN, 8080, server)
                assert not is_reachable(wrong.namespace_fd, HOST_WAN, 8080, timeout=2.0)

    asyncio.run(scenario())


def test_udp_and_raw_ways_are_bound_too(engine: Engine, outside: Outside) -> None:
    """Datagrams go only where the policy says; another's source address is no way round it (the guard drops it)."""

    async def scenario() -> None:
        async with engine:
            box = await sandbox(engine, f"allow={OUTSIDE}:81")
            with (
                listen(outside.namespace_fd, 81, socket.SOCK_DGRAM) as one,
                listen(outside.namespace_fd, 82, socket.SOCK_DGRAM) as two,
                client_socket(box.namespace_fd, socket.SOCK_DGRAM) as client,
            ):
                assert talk_udp(box.namespace_fd, OUTSIDE, 81, one)
                client.sendto(b"out", (OUTSIDE, 82))
                two.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    two.recv(16)
            await engine.network.create(NetworkRequest(name="free", options={"tare.network.guard": "false"}))
            with pytest.raises(InvalidArgument, match="needs the guard"):
                await sandbox(engine, "none", "free")

    asyncio.run(scenario())


def test_what_is_rejected_is_told(engine: Engine, outside: Outside) -> None:
    """Who tried, and what: to the one who listens, at most some a second."""

    async def scenario() -> None:
        told: list[tuple[str, LoggedPacket]] = []
        async with engine:
            engine.network.on_denied(lambda container_id, packet: told.append((container_id, packet)))
            box = await sandbox(engine, "none")
            assert not is_reachable(box.namespace_fd, OUTSIDE, 443, timeout=2.0)
            with client_socket(box.namespace_fd, socket.SOCK_DGRAM) as client:
                for _ in range(300):
                    client.sendto(b"out", (OUTSIDE, 53))
            deadline = time.monotonic() + DEADLINE_S
            while len(told) < 2 and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert told[0] == (box.record.container_id, LoggedPacket(box.ip, OUTSIDE, "tcp", 443))
            assert told[1] == (box.record.container_id, LoggedPacket(box.ip, OUTSIDE, "udp", 53))
            await asyncio.sleep(0.1)
            assert len(told) < 60

    asyncio.run(scenario())


@contextmanager
def resolver(answers: dict[str, str]) -> Iterator[list[str]]:
    """A resolver on the host's loopback; yields what it was asked."""
    asked: list[str] = []
    with listen(None, 53, socket.SOCK_DGRAM, "127.0.0.54") as server:

        def serve() -> None:
            while True:
                data, sender = server.recvfrom(512)
                if data == b"end":
                    return
                query = DNSRecord.parse(data)
                name = str(query.q.qname).rstrip(".")
                asked.append(name)
                reply = query.reply()
                reply.add_answer(*(RR(query.q.qname, rdata=A(text), ttl=5) for text in [answers[name.lower()]]))
                server.sendto(reply.pack(), sender)

        server.settimeout(None)
        thread = threading.Thread(target=serve)
        thread.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            try:
                yield asked
            finally:
                end.sendto(b"end", ("127.0.0.54", 53))
                thread.join()


def lookup(box: Endpoint, name: str) -> tuple[int, list[str]]:
    with client_socket(box.namespace_fd, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.11", 53))
        client.send(DNSRecord.question(name).pack())
        reply = DNSRecord.parse(client.recv(512))
    return reply.header.rcode, [str(record.rdata) for record in reply.rr]


def test_names_open_the_way_to_what_they_stand_for(host: None, outside: Outside, tmp_path: Path) -> None:
    """A name in the policy is looked up, and its addresses may then be sent to, at its port only; other names aren't
    even asked for outside (which would be a way to send something out), and none opens a way to the link's own
    addresses; the host is allowed by its name, too."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.54\n")
    settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", host_resolv_conf=str(resolv_conf))
    answers = {"shop.example": OUTSIDE, "a.wild.example": "203.0.113.1", "evil.wild.example": "169.254.169.254"}

    async def scenario() -> None:
        engine = Engine(tmp_path, settings)
        async with engine:
            await engine.network.create(NetworkRequest(name="own"))
            egress = "allow=shop.example:81,*.wild.example,host.tare.internal:83"
            box = await sandbox(engine, egress, "own")
            await sandbox(engine, "none", "own", names=("neighbour",))
            with (
                resolver(answers) as asked,
                listen(outside.namespace_fd, 81) as one,
                listen(outside.namespace_fd, 82) as two,
                listen(None, 83) as service,
            ):
                assert not await asyncio.to_thread(reaches, box, one, OUTSIDE)
                assert await asyncio.to_thread(lookup, box, "Shop.example") == (0, [OUTSIDE])
                for _ in range(2):
                    assert await asyncio.to_thread(reaches, box, one, OUTSIDE)
                    assert not await asyncio.to_thread(reaches, box, two, OUTSIDE)
                    await engine.network.mend()  # the rules are written anew; what was found stays open
                assert (await asyncio.to_thread(lookup, box, "secret.data.example"))[0] == 5  # REFUSED
                assert (await asyncio.to_thread(lookup, box, "wild.example"))[0] == 5
                assert (await asyncio.to_thread(lookup, box, "neighbour"))[0] == 0
                assert await asyncio.to_thread(lookup, box, "a.wild.example") == (0, ["203.0.113.1"])
                assert (await asyncio.to_thread(lookup, box, "evil.wild.example"))[0] == 0
                assert not await asyncio.to_thread(reaches, box, service, box.gateway)
                assert (await asyncio.to_thread(lookup, box, "host.tare.internal")) == (0, [box.gateway])
                assert await asyncio.to_thread(reaches, box, service, box.gateway)
                assert asked == ["Shop.example", "a.wild.example", "evil.wild.example"]
            with NftablesSocket() as nft:
                named = [element.key[4:] for element in nft.elements("tn", "egress_named")]
                assert named == [socket.inet_aton("203.0.113.1")]
                engine.network.set_egress(box.record.container_id, "allow=*.wild.example")
                assert nft.elements("tn", "egress_named") == nft.elements("tn", "egress_named_port") == []
            with pytest.raises(InvalidArgument, match="with names needs a network of the user's own"):
                await sandbox(engine, "allow=shop.example")

    asyncio.run(scenario())


def test_without_packet_filter_a_policy_is_refused(host: None, tmp_path: Path) -> None:
    """A policy that nothing would enforce is no policy: the start fails."""

    async def scenario() -> None:
        settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", firewall=False)
        async with Engine(tmp_path, settings) as engine:
            with pytest.raises(Unsupported, match="egress policies without the engine's packet filter"):
                await sandbox(engine, "none")
            assert engine.network.endpoints() == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "text",
    ["some", "allow", "allow=", "allow=,", "allow=10.0.0.1/8", "allow=a:b", "allow=10.0.0.0/8:0", "allow=1.2.3.4:65536",
     "allow=[::1", "allow=a_b!c", "allow=*", "allow=*.*.x", "deny=10.0.0.0/8", "allow=1.2.3.999", "allow=-x.y"],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text: str) -> None:
    """Nothing is let through by mistake."""
    with pytest.raises(InvalidArgument, match="invalid egress"):
        parse_policy(text)


_WORDS = st.sampled_from(
    [
        "10.0.0.0/8",
        "10.1.0.0/16:80",
        "10.1.2.0/24",
        "10.1.2.3:443",
        "0.0.0.0/0:80",
        "192.0.2.1",
        "fd00::/8",
        "[fd00::1]:80",
    ]
)
_POLICIES = st.lists(_WORDS, max_size=5).map(lambda words: "allow=" + ",".join(words) if words else "none")


@given(_POLICIES, _POLICIES, st.sampled_from(["10.1.2.3", "10.1.2.4", "10.2.0.1", "192.0.2.1", "fd00::1"]),
       st.sampled_from([80, 443]))  # fmt: skip
def test_two_policies_allow_what_both_allow(one: str, other: str, address: str, port: int) -> None:
    """The subnets for the packet filter are exactly those addresses and ports that each policy allows by itself."""
    ip = ipaddress.ip_address(address)

    def allows(text: str) -> bool:
        policy = parse_policy(text)
        assert policy is not None
        return bool(policy.ports_at(ip) & {0, port})

    policies = both(parse_policy(one), parse_policy(other))
    found = any(
        subnet.version == ip.version and ip in subnet and allowed in (0, port)
        for subnet, allowed in allowed_subnets(policies)
    )
    assert found == (allows(one) and allows(other))


def test_a_name_of_one_policy_passes_the_subnets_of_the_other() -> None:
    """What was found under a name of the container's policy still has to be allowed by the network's."""
    policies = both(parse_policy("allow=10.0.0.0/8:443,10.9.0.0/16"), parse_policy("allow=db.example"))
    assert named_ports(policies, "db.example", ipaddress.ip_address("10.1.1.1")) == {443}
    assert named_ports(policies, "db.example", ipaddress.ip_address("10.9.1.1")) == {0}
    assert named_ports(policies, "db.example", ipaddress.ip_address("192.0.2.1")) == set()
    assert named_ports(policies, "other.example", ipaddress.ip_address("10.1.1.1")) == set()
