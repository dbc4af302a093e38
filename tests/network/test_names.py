"""Names in networks of the user's own: real questions from inside a container to 127.0.0.11, over UDP and TCP."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dnslib import PTR, QTYPE, RR, TXT, A, DNSRecord
from hypothesis import given
from hypothesis import strategies as st
from network_world import DEADLINE_S, Engine, client_socket, inside, listen

from tare.network import dns_answers, dns_forward
from tare.network.names import ContainerNames
from tare.network.records import AddressOptions, Endpoint, EndpointRequest, NetworkRequest, NetworkSettings
from tare.values.ids import new_id

RESOLVER = ("127.0.0.11", 53)


async def ask(box: Endpoint, name: str, kind: str = "A", *, stream: bool = False) -> DNSRecord:
    """What the resolver in a container answers; asked in a thread, since the answer comes from this one's loop."""
    message = DNSRecord.question(name, kind).pack()
    return DNSRecord.parse(await asyncio.to_thread(exchange, box, message, stream))


def exchange(box: Endpoint, message: bytes, stream: bool, timeout: float = DEADLINE_S) -> bytes:
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    with client_socket(box.namespace_fd, kind, timeout) as client:
        client.connect(RESOLVER)
        client.sendall(struct.pack(">H", len(message)) + message if stream else message)
        if not stream:
            return client.recv(65535)
        with client.makefile("rb") as file:
            (size,) = struct.unpack(">H", file.read(2))
            return file.read(size)


async def addresses(box: Endpoint, name: str) -> list[str]:
    reply = await ask(box, name)
    assert reply.header.rcode == 0
    return sorted(str(record.rdata) for record in reply.rr)


async def code(box: Endpoint, name: str, kind: str = "A") -> int:
    return int((await ask(box, name, kind)).header.rcode)


async def join(engine: Engine, name: str, *networks: str, aliases: tuple[str, ...] = (), **options: object) -> Endpoint:
    container_id = new_id()
    names = (name, *aliases, container_id[:12])
    wanted = [
        EndpointRequest(mode=network, container_name=name, names=names, **options)  # type: ignore[arg-type]
        for network in networks
    ]
    return await engine.network.attach(container_id, *wanted)


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    return tmp_path / "resolv.conf"


@pytest.fixture
def world(host: None, tmp_path: Path, resolv_conf: Path) -> Engine:
    settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", host_resolv_conf=str(resolv_conf))
    return Engine(tmp_path, settings)


async def two_networks(world: Engine) -> None:
    for name, subnet in (("one", "10.7.0.0/24"), ("two", "10.8.0.0/24")):
        await world.network.create(NetworkRequest(name=name, addresses=(AddressOptions(subnet=subnet),)))


def test_containers_find_each_other(world: Engine) -> None:
    """By name, alias and short id, in any case, with the network's name behind; only in networks that they share."""

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            web = await join(world, "Web", "one", aliases=("shop",))
            both = await join(world, "both", "one", "two")
            far = await join(world, "far", "two")
            for name in ("web", "WEB.", "shop", web.record.container_id[:12], "web.one", "shop.one"):
                assert await addresses(both, name) == [web.ip]
            assert await addresses(web, "both") == [both.ip]
            assert await addresses(far, "both") == [both.records[1].ip]
            assert await addresses(both, "both.two") == [both.records[1].ip]
            for name in ("web", "shop", "web.one", "nosuch"):
                assert await code(far, name) == 2  # nobody is there to forward to: SERVFAIL
            assert (await ask(web, "both", "AAAA")).rr == [] and await code(web, "both", "AAAA") == 0
            assert str((await ask(web, "both", stream=True)).rr[0].rdata) == both.ip

    asyncio.run(scenario())


def test_shared_alias_takes_turns(world: Engine) -> None:
    """An alias of several containers means all of them, each answer beginning with another one."""

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            boxes = [await join(world, f"box{number}", "one", aliases=("pool",)) for number in range(3)]
            replies = [[str(record.rdata) for record in (await ask(boxes[0], "pool")).rr] for _ in range(3)]
            assert {tuple(sorted(reply)) for reply in replies} == {tuple(box.ip for box in boxes)}
            assert {reply[0] for reply in replies} == {box.ip for box in boxes}

    asyncio.run(scenario())


def test_changes_show_at_once(world: Engine) -> None:
    """Who ends, joins, leaves or is renamed is found so in the next answer."""

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            box, other = await join(world, "box", "one"), await join(world, "other", "two")
            assert await code(box, "other") == 2
            wish = EndpointRequest(mode="one", container_name="other", names=("other",))
            record = await world.network.connect(other.record.container_id, wish)
            assert await addresses(box, "other") == [record.ip]
            world.network.rename(other.record.container_id, "other", "friend")
            assert await addresses(box, "friend") == [record.ip] and await code(box, "other") == 2
            await world.network.disconnect(other.record.container_id, record.network_id)
            assert await code(box, "friend") == 2
            await world.network.release(other.record.container_id)

    asyncio.run(scenario())


def test_reverse(world: Engine) -> None:
    """An address of one's own network has its container's name, with the network's; another one's has none here."""

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            box, far = await join(world, "box", "one"), await join(world, "far", "two")
            reply = await ask(box, "2.0.7.10.in-addr.arpa", "PTR")
            assert isinstance(reply.rr[0].rdata, PTR) and str(reply.rr[0].rdata) == "box.one."
            assert await code(box, f"{'.'.join(reversed(far.ip.split('.')))}.in-addr.arpa", "PTR") == 2

    asyncio.run(scenario())


def test_links_name_others_for_one_container(world: Engine) -> None:
    """What a container calls another one is known to itself alone."""

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            db = await join(world, "db", "one")
            app, plain = await join(world, "app", "one", links=(("db", "store"),)), await join(world, "plain", "one")
            assert await addresses(app, "store") == [db.ip]
            assert await code(plain, "store") == 2

    asyncio.run(scenario())


def test_the_hosts_name(world: Engine) -> None:
    """host.docker.internal and host.tare.internal are the gateway; a container with that alias comes first."""

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            box = await join(world, "box", "one")
            for name in ("host.docker.internal", "host.tare.internal"):
                assert await addresses(box, name) == [box.gateway]
            other = await join(world, "other", "one", aliases=("host.docker.internal",))
            assert await addresses(box, "host.docker.internal") == [other.ip]

    asyncio.run(scenario())


def test_a_container_may_serve_names_itself(world: Engine) -> None:
    """Port 53 of every address is free in a container, and asking 127.0.0.11 goes on to work."""

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            box = await join(world, "box", "one")
            with listen(box.namespace_fd, 53), listen(box.namespace_fd, 53, socket.SOCK_DGRAM):
                assert await addresses(box, "box") == [box.ip]
                assert str((await ask(box, "box", stream=True)).rr[0].rdata) == box.ip

    asyncio.run(scenario())


@contextmanager
def upstream(reply: Callable[[DNSRecord, bool], DNSRecord | None], address: str) -> Iterator[list[str]]:
    """A resolver on the host, over UDP and TCP; yields what it was asked."""
    asked: list[str] = []
    sockets = [listen(None, 53, kind, address) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]

    def serve_datagrams() -> None:
        while True:
            try:
                data, sender = sockets[0].recvfrom(65535)
            except OSError:
                return
            if data == b"end":
                return
            query = DNSRecord.parse(data)
            asked.append(str(query.q.qname))
            answer = reply(query, False)
            if answer is not None:
                sockets[0].sendto(answer.pack(), sender)

    def serve_streams() -> None:
        while True:
            try:
                client, _ = sockets[1].accept()
            except OSError:
                return
            with client, client.makefile("rwb") as file:
                head = file.read(2)
                if len(head) < 2:
                    return
                query = DNSRecord.parse(file.read(struct.unpack(">H", head)[0]))
                asked.append(f"tcp {query.q.qname}")
                answer = reply(query, True)
                packed = answer.pack() if answer is not None else b""
                file.write(struct.pack(">H", len(packed)) + packed)

    threads = [threading.Thread(target=serve) for serve in (serve_datagrams, serve_streams)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", (address, 53))
        socket.create_connection((address, 53)).close()
        for thread in threads:
            thread.join(DEADLINE_S)
        for sock in sockets:
            sock.close()


def plain(query: DNSRecord, _stream: bool) -> DNSRecord:
    reply: DNSRecord = query.reply()
    reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A("203.0.113.7"), ttl=60))
    return reply


def test_forwarding(world: Engine, resolv_conf: Path) -> None:
    """What nobody here knows is asked of the host's resolvers, over UDP and TCP; even one on the host's loopback."""
    resolv_conf.write_text("nameserver 127.0.0.54\n")

    def reply(query: DNSRecord, stream: bool) -> DNSRecord:
        if str(query.q.qname) != "big.example.":
            return plain(query, stream)
        made: DNSRecord = query.reply()
        made.add_answer(*(RR(query.q.qname, QTYPE.TXT, rdata=TXT(str(number) * 200)) for number in range(5)))
        if stream:
            return made
        short: DNSRecord = query.reply()
        short.header.tc = 1
        return short

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            box = await join(world, "box", "one")
            with upstream(reply, "127.0.0.54") as asked:
                assert await addresses(box, "far.example") == ["203.0.113.7"]
                assert await addresses(box, "box") == [box.ip]
                assert asked == ["far.example."]
                assert (await ask(box, "big.example", "TXT")).header.tc
                assert len((await ask(box, "big.example", "TXT", stream=True)).rr) == 5
                assert asked[-1] == "tcp big.example."

    asyncio.run(scenario())


def test_internal_networks_ask_nobody(world: Engine, resolv_conf: Path) -> None:
    """CVE-2024-29018: a container without a way out can't send data out by asking for names either."""
    resolv_conf.write_text("nameserver 127.0.0.54\n")

    async def scenario() -> None:
        async with world:
            await world.network.create(NetworkRequest(name="shut", internal=True))
            box, friend = await join(world, "box", "shut"), await join(world, "friend", "shut")
            with upstream(plain, "127.0.0.54") as asked:
                assert await code(box, "secret.attacker.example") == 2
                assert await addresses(box, "friend") == [friend.ip]
                assert asked == []

    asyncio.run(scenario())


def test_changes_of_the_hosts_resolvers_are_followed(world: Engine, resolv_conf: Path) -> None:
    """Another resolv.conf counts from the next question on; a dead resolver is passed over; --dns comes first."""
    resolv_conf.write_text("nameserver 127.0.0.55\nnameserver 127.0.0.54\n")

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            box = await join(world, "box", "one")
            own = await join(world, "own", "one", nameservers=("127.0.0.57",))
            with upstream(plain, "127.0.0.54") as first, upstream(plain, "127.0.0.56") as second:
                await addresses(box, "a.example")
                resolv_conf.write_text("nameserver 127.0.0.56\n")
                await addresses(box, "b.example")
                assert (first, second) == (["a.example."], ["b.example."])
                with upstream(plain, "127.0.0.57") as third:
                    await addresses(own, "c.example")
                    assert third == ["c.example."]

    asyncio.run(scenario())


def test_answers_to_something_else_are_not_believed(world: Engine, resolv_conf: Path) -> None:
    """A datagram that answers another question, or has another id, isn't an answer."""
    resolv_conf.write_text("nameserver 127.0.0.54\n")

    def lie(query: DNSRecord, _stream: bool) -> DNSRecord:
        reply = plain(DNSRecord.question("other.example"), False)
        reply.header.id = query.header.id
        return reply

    question = DNSRecord.question("a.example").pack()
    assert dns_forward.is_answer(question, DNSRecord.parse(question).reply().pack())
    other = DNSRecord.parse(question).reply()
    other.header.id ^= 1
    assert not dns_forward.is_answer(question, other.pack())

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            box = await join(world, "box", "one")
            with upstream(lie, "127.0.0.54"):
                assert await code(box, "a.example") == 2

    asyncio.run(scenario())


def test_resolution_after_a_crash(world: Engine, tmp_path: Path, resolv_conf: Path) -> None:
    """After kill -9 of the engine the next one answers again, through sockets that it has opened anew."""

    async def first_life() -> tuple[Endpoint, int]:
        await world.network.start()
        await two_networks(world)
        box = await join(world, "box", "one")
        assert box.namespace_fd is not None
        return box, os.dup(box.namespace_fd)

    async def second_life(box: Endpoint, fd: int) -> None:
        container_id = box.record.container_id
        async with Engine(tmp_path, world.settings) as again:
            await again.network.restore({container_id})
            await again.network.resume(container_id, keeper.pid)
            assert await addresses(Endpoint(record=box.record, namespace_fd=fd), "box") == [box.ip]
            os.close(fd)
            keeper.kill()
            keeper.wait()

    import subprocess

    box, fd = asyncio.run(first_life())
    with inside(fd):
        keeper = subprocess.Popen(["sleep", "100"])
    world.crash()
    asyncio.run(second_life(box, fd))


class _Nobody(ContainerNames):
    """Knows one name."""

    def __init__(self) -> None:
        pass

    def addresses(self, name: str) -> list[str] | None:
        return ["10.0.0.1"] * 40 if name == "here" else None

    def name_of(self, address: str) -> str | None:
        return None


@given(st.binary(max_size=80), st.integers(0, 3))
def test_any_bytes_get_an_answer_or_none(data: bytes, cut: int) -> None:
    """No message makes the server of names fail."""
    good = DNSRecord.question("here").pack()
    for message in (data, good[: len(good) - cut] + data, data[:12] + good[12:]):
        try:
            found = dns_answers.answer(message, _Nobody(), stream=False)
        except dns_answers.Ask:
            continue
        assert found is None or found[:2] == message[:2]


def test_answers_that_are_too_long_say_so() -> None:
    """512 bytes hold some 30 addresses; more are to be asked for over TCP, or with a larger limit (RFC 6891)."""
    from dnslib import EDNS0

    query = DNSRecord.question("here")
    short = dns_answers.answer(query.pack(), _Nobody(), stream=False)
    assert (
        short is not None
        and DNSRecord.parse(short).header.tc
        and DNSRecord.parse(short).questions
        and len(short) <= 512
    )
    whole = dns_answers.answer(query.pack(), _Nobody(), stream=True)
    assert whole is not None and len(DNSRecord.parse(whole).rr) == 40
    query.add_ar(EDNS0(udp_len=4096))
    larger = dns_answers.answer(query.pack(), _Nobody(), stream=False)
    assert larger is not None and len(DNSRecord.parse(larger).rr) == 40


def test_a_flood_of_questions_is_cut_off(world: Engine) -> None:
    """A container that asks without end doesn't get an answer each time, but is served again afterwards."""

    async def scenario() -> None:
        async with world:
            await two_networks(world)
            box = await join(world, "box", "one")
            message = DNSRecord.question("box").pack()
            with client_socket(box.namespace_fd, socket.SOCK_DGRAM) as client:
                client.connect(RESOLVER)
                for _ in range(30):
                    for _ in range(200):
                        client.send(message)
                    await asyncio.sleep(0)  # the server's turn
            deadline = asyncio.get_running_loop().time() + DEADLINE_S
            while asyncio.get_running_loop().time() < deadline:
                try:
                    found = await asyncio.to_thread(exchange, box, message, False, 0.2)
                except TimeoutError:
                    continue
                assert [str(record.rdata) for record in DNSRecord.parse(found).rr] == [box.ip]
                return
            raise AssertionError("no answer after the flood")

    asyncio.run(scenario())
