"""Messages that mean harm to the server of names, and so to the engine that all tenants share."""

from __future__ import annotations

import asyncio
import struct
import time

import pytest
from dnslib import AAAA, CNAME, QTYPE, RR, A, DNSRecord
from network_world import DEADLINE_S, Engine, client_socket

from tare.network import dns_answers
from tare.network.egress import may_ask, parse_policy
from tare.network.names import ContainerNames
from tare.network.records import Endpoint, EndpointRequest, NetworkRequest
from tare.values.ids import new_id

RESOLVER = ("127.0.0.11", 53)
LONG = b"\x01a" * 120 + b"\0"  # a name of many parts
TO_IT = b"\xc0\x0c"  # a pointer to the question's name
HEADER = struct.Struct(">6H")


class Nobody(ContainerNames):
    """No container has a name."""

    def __init__(self) -> None:
        pass

    def addresses(self, name: str) -> list[str] | None:
        return None

    def name_of(self, address: str) -> str | None:
        return None


def crowded(kind: int, data: bytes, answers: bool) -> bytes:
    """A message of 64 KiB whose thousands of records all have the question's long name, compressed to two bytes."""
    record = TO_IT + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
    number = (65_000 - len(LONG)) // len(record)
    flags, counts = (0x8180, (number, 0)) if answers else (0x0100, (0, number))
    head = HEADER.pack(7, flags, 1, counts[0], 0, counts[1])
    return head + LONG + struct.pack(">HH", 1, 1) + record * number


@pytest.mark.parametrize(("kind", "data"), [(1, b"\x0a\0\0\1"), (5, TO_IT), (16, b"\0"), (65_280, b"")])
def test_names_that_point_at_each_other_cost_little(kind: int, data: bytes) -> None:
    """Each of these messages would keep a parser that follows the names busy for a second or more; here a hundred
    questions and a hundred answers of others' servers take no ten together."""
    question, answer = crowded(kind, data, answers=False), crowded(kind, data, answers=True)
    before = time.process_time()
    for _ in range(100):
        refused = dns_answers.answer(question, Nobody(), stream=True)
        assert refused is not None and refused[3] & 0xF == 1  # FORMERR
        assert dns_answers.question_name(question) == ".".join("a" * 120)
        assert len(dns_answers.addresses_in(answer)[0]) == (64 if kind == 1 else 0)
    assert time.process_time() - before < 10


@pytest.mark.parametrize(
    "name",
    [
        TO_IT,  # itself
        b"\x01a\xc0\x0c",  # round and round
        b"\xc0\xff",  # nowhere
        b"\x40" + b"a" * 64 + b"\0",  # a part that is too long
        (b"\x3f" + b"a" * 63) * 4 + b"\0",  # a name that is too long
        b"\x3fa",  # cut off
    ],
)
def test_names_that_are_none_are_refused(name: bytes) -> None:
    message = HEADER.pack(7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)
    refused = dns_answers.answer(message, Nobody(), stream=False)
    assert refused == HEADER.pack(7, 0x8181, 0, 0, 0, 0)
    assert dns_answers.addresses_in(message) == ([], 0)


@pytest.mark.parametrize(
    "labels", [(b"secret.api", b"example"), (b"secret", b"api.example"), (b"secret", b"api", "e\u212aample".encode())]
)
def test_a_policy_is_not_fooled_by_what_only_looks_like_a_name(labels: tuple[bytes, ...]) -> None:
    """A dot within a part of a name, and letters that some alphabets take for others, make another name."""
    policy = parse_policy("allow=*.api.example,*.api.ekample")
    assert policy is not None and may_ask((policy,), "secret.api.example")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0" + struct.pack(">HH", 1, 1)
    asked = dns_answers.question_name(HEADER.pack(7, 0x0100, 1, 0, 0, 0) + wire)
    assert asked and not may_ask((policy,), asked)


@pytest.mark.parametrize(("chain", "address", "holds"), [(5, 3600, 5), (3600, 5, 5), (0, 0, 0), (300, 300, 300)])
def test_addresses_behind_other_names_hold_as_long_as_the_chain(chain: int, address: int, holds: int) -> None:
    """A name that a policy allows may lead to others' names: what is at their end counts, of both kinds."""
    reply = DNSRecord.question("api.example").reply()
    for name, other in (("api.example", "a.cdn.example"), ("a.cdn.example", "b.cdn.example")):
        reply.add_answer(RR(name, QTYPE.CNAME, rdata=CNAME(other), ttl=chain))
    reply.add_answer(RR("b.cdn.example", QTYPE.A, rdata=A("203.0.113.7"), ttl=address))
    reply.add_answer(RR("b.cdn.example", QTYPE.AAAA, rdata=AAAA("2001:db8::7"), ttl=address))
    assert dns_answers.addresses_in(bytes(reply.pack())) == (["203.0.113.7", "2001:db8::7"], holds)


async def alone(engine: Engine, network: str) -> Endpoint:
    await engine.network.create(NetworkRequest(name=network))
    request = EndpointRequest(mode=network, container_name="box", names=("box",))
    return await engine.network.attach(new_id(), request)


def test_a_flood_over_tcp_is_slowed_down(engine: Engine) -> None:
    """Thousands of questions in one go over one connection are all answered, but not more than so many in a second;
    meanwhile the engine has time for others."""

    async def scenario() -> None:
        async with engine:
            box = await alone(engine, "own")
            message = DNSRecord.question("box").pack()
            number, turns = 6000, 0
            done = asyncio.create_task(asyncio.to_thread(flood, box, message, number))
            while not done.done():
                await asyncio.sleep(0.01)
                turns += 1
            assert await done == number
            assert turns > 20  # 2 seconds at least

    asyncio.run(scenario())


def flood(box: Endpoint, message: bytes, number: int) -> int:
    framed = struct.pack(">H", len(message)) + message
    with client_socket(box.namespace_fd, timeout=DEADLINE_S * 3) as client:
        client.connect(RESOLVER)
        answers = 0
        with client.makefile("rb") as file:
            for _ in range(number // 100):
                client.sendall(framed * 100)
                for _ in range(100):
                    (size,) = struct.unpack(">H", file.read(2))
                    answers += DNSRecord.parse(file.read(size)).header.rcode == 0
        return answers


def test_a_networks_long_name_is_no_part_of_a_reverse_name(engine: Engine) -> None:
    """Networks may be called what no name in DNS can be: who asks backwards is told that there is no name."""

    async def scenario() -> None:
        async with engine:
            for network, found in (("n" * 64, []), ("büro", ["box.b\\195\\188ro."])):
                box = await alone(engine, network)
                name = ".".join(reversed(box.ip.split("."))) + ".in-addr.arpa"
                reply = await asyncio.to_thread(ask, box, DNSRecord.question(name, "PTR").pack())
                assert reply.header.rcode == 0
                assert [str(record.rdata) for record in reply.rr] == found
                await engine.network.release(box.record.container_id)

    asyncio.run(scenario())


def ask(box: Endpoint, message: bytes) -> DNSRecord:
    with client_socket(box.namespace_fd) as client:
        client.connect(RESOLVER)
        client.sendall(struct.pack(">H", len(message)) + message)
        with client.makefile("rb") as file:
            (size,) = struct.unpack(">H", file.read(2))
            return DNSRecord.parse(file.read(size))
