"""Living beside others in the packet filter, and connection tracking that outlives containers."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Callable

import pytest
from network_world import (
    DEADLINE_S,
    HOST_WAN,
    OUTSIDE,
    Engine,
    Outside,
    client_socket,
    is_reachable,
    is_silent,
    listen,
    talk,
)

from tare.kernel.nftables import NFPROTO_IPV4, Chain, NftablesSocket, Transaction
from tare.network.records import PortRequest


async def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.005)


def test_flushed_table_comes_back_by_itself(engine: Engine, outside: Outside) -> None:
    """A firewall's reload flushes everything: ports are open again and the others shut, without anybody asking
    (CVE-2025-54388, CVE-2025-54410)."""

    async def scenario() -> None:
        async with engine:
            outside.route_through_host()
            box = await engine.attach(PortRequest(80, host_port=8080), PortRequest(81, "tcp", "127.0.0.1", 8081))
            with listen(box.namespace_fd, 80) as server, listen(box.namespace_fd, 81), NftablesSocket() as nft:
                transaction = Transaction("tn")
                transaction.delete_table()
                nft.commit(transaction)
                await wait_until(lambda: nft.has_table("tn"))
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                assert not is_reachable(outside.namespace_fd, HOST_WAN, 8081)
                assert not is_reachable(outside.namespace_fd, box.ip, 81)

    asyncio.run(scenario())


@pytest.mark.skipif(shutil.which("nft") is None, reason="no nft program to play the administrator")
def test_emptied_chain_comes_back_and_nft_reads_the_table(engine: Engine) -> None:
    """Deleting single rules is repaired too; `nft` lists the table in words, with comments."""

    async def scenario() -> None:
        async with engine:
            await engine.attach(PortRequest(80, host_port=8080))
            table = engine.network._table
            assert table is not None
            for command in (["flush", "chain", "inet", "tn", "forward"], ["flush", "ruleset"]):
                subprocess.run(["nft", *command], check=True)
                assert not table.is_whole()
                await wait_until(table.is_whole)
            said = subprocess.run(
                ["nft", "list", "table", "inet", "tn"], check=True, capture_output=True, text=True
            ).stdout
            assert 'elements = { "tn0" }' in said
            assert "elements = { tcp . 8080 : 172.30.0.2 . 80 }" in said
            assert "dnat ip to meta l4proto . th dport map @published_any" in said
            assert 'oifname @bridges ct status dnat accept comment "published ports"' in said

    asyncio.run(scenario())


def test_foreign_drop_policy_is_named(engine: Engine, outside: Outside) -> None:
    """Where another table drops what it doesn't know (as Docker's does), containers reach nothing, and we say why."""

    async def scenario() -> None:
        async with engine:
            assert engine.network.warnings() == []
            foreign = Transaction("filter", NFPROTO_IPV4)
            foreign.replace_table()
            foreign.add_chain(Chain("FORWARD", "filter", "forward", 0, drops_by_default=True))
            with NftablesSocket() as nft:
                nft.commit(foreign)
                (warning,) = engine.network.warnings()
                assert warning.startswith("table filter, chain FORWARD drops forwarded packets")
                box = await engine.attach(PortRequest(80, host_port=8080))
                with listen(box.namespace_fd, 80):
                    assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)
                away = Transaction("filter", NFPROTO_IPV4)
                away.delete_table()
                nft.commit(away)

    asyncio.run(scenario())


def test_datagrams_to_a_dead_container_do_not_reach_its_heir(engine: Engine, outside: Outside) -> None:
    """A UDP flow to a container that is gone isn't sent on to the next one with its address."""

    async def scenario() -> None:
        async with engine:
            first = await engine.attach(PortRequest(53, "udp", host_port=5353))
            with client_socket(outside.namespace_fd, socket.SOCK_DGRAM) as client:
                client.connect((HOST_WAN, 5353))
                with listen(first.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                    client.send(b"one")
                    assert server.recv(16) == b"one"
                await engine.network.release(first.record.container_id)
                await engine.network.wait_released()
                heir = await engine.attach()
                assert heir.ip == first.ip
                with listen(heir.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                    client.send(b"two")
                    assert is_silent(server)

    asyncio.run(scenario())


def test_datagrams_sent_too_early_find_the_port_later(engine: Engine, outside: Outside) -> None:
    """A client that sent to a UDP port before it was published reaches the container once it is."""

    async def scenario() -> None:
        async with engine:
            with client_socket(outside.namespace_fd, socket.SOCK_DGRAM) as client:
                with listen(None, 5353, socket.SOCK_DGRAM) as on_host:
                    client.connect((HOST_WAN, 5353))
                    client.send(b"early")
                    assert on_host.recv(16) == b"early"
                box = await engine.attach(PortRequest(53, "udp", host_port=5353))
                await engine.network._publishing.wait_forgotten()
                with listen(box.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                    client.send(b"later")
                    assert server.recv(16) == b"later"

    asyncio.run(scenario())


def test_forgetting_early_datagrams_spares_the_flows_that_are_right(engine: Engine, outside: Outside) -> None:
    """Publishing a UDP port cuts neither a flow that already reaches the container, nor one that only passes through
    the host to the same port elsewhere (DNS), though forgetting happens at any moment."""

    async def scenario() -> None:
        async with engine:
            other = await engine.attach()
            with (
                listen(outside.namespace_fd, 5353, socket.SOCK_DGRAM) as far_server,
                client_socket(other.namespace_fd, socket.SOCK_DGRAM) as passing,
                client_socket(outside.namespace_fd, socket.SOCK_DGRAM) as client,
            ):
                passing.connect((OUTSIDE, 5353))
                passing.send(b"query")
                _, asker = far_server.recvfrom(16)
                box = await engine.attach(PortRequest(53, "udp", host_port=5353))
                await engine.network._publishing.wait_forgotten()
                far_server.sendto(b"answer", asker)
                assert passing.recv(16) == b"answer"
                with listen(box.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                    client.connect((HOST_WAN, 5353))
                    client.send(b"ping")
                    _, seen = server.recvfrom(16)
                    engine.network._publishing.forget_misled_nowait(box.record)
                    await engine.network._publishing.wait_forgotten()
                    server.sendto(b"pong", seen)
                    assert client.recv(16) == b"pong"

    asyncio.run(scenario())
