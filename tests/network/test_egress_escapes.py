"""Ways round an egress policy, with real packets: over the link itself, in what keeps a link going, in stale names."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time

import pytest
from dnslib import RR, A, DNSRecord
from network_world import (
    DEADLINE_S,
    HOST_WAN6,
    OUTSIDE6,
    Engine,
    Outside,
    client_socket,
    inside,
    is_reachable,
    listen,
)

from tare.errors import InvalidArgument
from tare.kernel.nftables import NftablesSocket
from tare.network.dns_answers import addresses_in
from tare.network.egress import parse_policy
from tare.network.learned_ways import MOST_WAYS
from tare.network.port_guard import link_local_of
from tare.network.rates import BURST, RATE, parse_rate
from tare.network.records import AddressOptions, Endpoint, EndpointRequest, NetworkRequest
from tare.values.ids import new_id

_SOLICITS = 135
_ETH_P_IPV6 = 0x86DD
_SECRET = b"nobody is to hear this"


async def join(engine: Engine, egress: str) -> Endpoint:
    return await engine.network.attach(new_id(), EndpointRequest(mode="own", container_name="box", egress=egress))


async def make(engine: Engine) -> None:
    addresses = (AddressOptions(subnet="fd00:7::/64"),)
    await engine.network.create(NetworkRequest(name="own", ipv6=True, addresses=addresses))


def raw_icmp6(namespace_fd: int | None) -> socket.socket:
    assert namespace_fd is not None
    with inside(namespace_fd):
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)


def frames(namespace_fd: int | None) -> socket.socket:
    assert namespace_fd is not None
    with inside(namespace_fd):
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IPV6))


async def arrives(box: Endpoint, outside: Outside, tries: int) -> bool:
    """Whether a solicitation with something secret in it comes to another network; the first may be lost."""
    with frames(outside.namespace_fd) as heard, raw_icmp6(box.namespace_fd) as client:
        await bind_to(client, box.record.ip6)
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 64)
        for _ in range(tries):
            with contextlib.suppress(PermissionError):  # the one before was rejected
                client.sendto(bytes((_SOLICITS, 0, 0, 0)) + _SECRET, (OUTSIDE6, 0))
            heard.settimeout(0.25)
            with contextlib.suppress(TimeoutError):
                while True:
                    if _SECRET in heard.recv(2048):
                        return True
    return False


async def bind_to(client: socket.socket, address: str, index: int = 0) -> None:
    """Once the kernel has made sure that nobody else has the address."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return client.bind((address, 0, 0, index))
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def test_the_hosts_link_local_address_is_bound_too(engine: Engine, outside: Outside) -> None:
    """A service of the host that listens everywhere isn't reached over the bridge's own fe80:: address."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            free, bound = await join(engine, ""), await join(engine, "none")
            seen = []
            with listen(None, 83, address="::"):
                for box in (free, bound):
                    assert box.namespace_fd is not None
                    with client_socket(box.namespace_fd, timeout=2.0, to="fe80::1") as client, inside(box.namespace_fd):
                        index = socket.if_nametoindex("eth0")
                        await bind_to(client, str(link_local_of(box.mac)), index)
                        try:
                            client.connect(("fe80::1", 83, 0, index))
                            seen.append("in")
                        except PermissionError:
                            seen.append("rejected")
            assert seen == ["in", "rejected"]
            table = engine.network._table
            assert table is not None and table.is_whole()

    asyncio.run(scenario())


def test_neighbour_discovery_carries_nothing_out(engine: Engine, outside: Outside) -> None:
    """A solicitation to a far address would be forwarded like any packet; the link goes on without such."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            free, bound = await join(engine, ""), await join(engine, f"allow={HOST_WAN6}")
            assert await arrives(free, outside, tries=20)
            assert not await arrives(bound, outside, tries=2)
            with listen(None, 83, address="::"):
                assert is_reachable(bound.namespace_fd, HOST_WAN6, 83, expected=True)

    asyncio.run(scenario())


def test_names_of_an_earlier_policy_are_forgotten_for_both_kinds_of_address(engine: Engine) -> None:
    """A tighter policy closes what was found under names before it, IPv6 addresses too."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            box = await join(engine, "allow=a.example")
            names = engine.network._names
            names.learn([box.record], "a.example", [OUTSIDE6, "203.0.113.7"], 600)
            with NftablesSocket() as nft:
                found = [element.key[16:] for element in nft.elements("tn", "egress_named6")]
                assert found == [ipaddress.IPv6Address(OUTSIDE6).packed]
                engine.network.set_egress(box.record.container_id, "allow=b.example")
                assert nft.elements("tn", "egress_named") == nft.elements("tn", "egress_named6") == []

    asyncio.run(scenario())


def test_endless_numbers_are_refused() -> None:
    """Digits without end are no port, rate or burst, and no failure of ours."""
    with pytest.raises(InvalidArgument, match="invalid egress"):
        parse_policy("allow=10.0.0.1:" + "9" * 5000)
    with pytest.raises(InvalidArgument, match="invalid rate"):
        parse_rate({RATE: "9" * 400 + "mbit"})
    with pytest.raises(InvalidArgument, match="invalid burst"):
        parse_rate({RATE: "1mbit", BURST: "9" * 5000})


def test_an_answer_of_thousands_of_addresses_opens_few_ways() -> None:
    """Who runs a name that a policy allows says how many addresses it has: not how many elements that costs."""
    reply = DNSRecord.question("a.example").reply()
    reply.add_answer(*(RR("a.example", rdata=A(f"203.0.{number >> 8}.{number & 255}")) for number in range(2000)))
    assert len(addresses_in(reply.pack())[0]) == 64


@pytest.mark.parametrize("second", [60, 110, 600])
def test_a_way_is_open_for_as_long_as_the_last_answer_holds(engine: Engine, second: int) -> None:
    """Also if it was opened for less by the answer before, a moment ago."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            box = await join(engine, "allow=a.example")
            names = engine.network._names
            for seconds in (60, second):
                names.learn([box.record], "a.example", ["203.0.113.7"], seconds)
            with NftablesSocket() as nft:
                (way,) = nft.elements("tn", "egress_named")
                assert way.timeout_ms >= second * 1000

    asyncio.run(scenario())


def test_a_name_with_ever_new_addresses_fills_nothing(engine: Engine) -> None:
    """One endpoint has a bounded number of ways open at a time; what is open is opened anew only when it runs out."""

    async def scenario() -> None:
        async with engine:
            await make(engine)
            box, other = await join(engine, "allow=a.example"), await join(engine, "allow=a.example")
            names = engine.network._names
            for number in range(100):
                found = [f"203.0.{number}.{last}" for last in range(64)]
                names.learn([box.record], "a.example", found, 600)
                names.learn([box.record], "a.example", found, 600)
            names.learn([other.record], "a.example", ["203.0.113.7"], 600)
            with NftablesSocket() as nft:
                assert len(nft.elements("tn", "egress_named")) == MOST_WAYS + 1
                engine.network.set_egress(box.record.container_id, "allow=a.example")
                names.learn([box.record], "a.example", ["203.0.113.8"], 600)
                assert len(nft.elements("tn", "egress_named")) == 2

    asyncio.run(scenario())
