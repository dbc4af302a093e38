"""Real packets between containers, the host and the world outside."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from network_world import (
    HOST_WAN,
    OUTSIDE,
    Engine,
    Outside,
    is_reachable,
    listen,
    talk,
    talk_udp,
)

from tare.network.records import EndpointRequest, NetworkSettings, PortRequest
from tare.values.ids import new_id


def test_containers_and_host_reach_each_other(engine: Engine) -> None:
    """Two containers and the host talk over the bridge, each seen under its own address."""

    async def scenario() -> None:
        async with engine:
            one, two = await engine.attach(), await engine.attach()
            assert (one.ip, one.prefix, one.gateway, one.mac) == ("172.30.0.2", 24, "172.30.0.1", "02:42:ac:1e:00:02")
            with listen(two.namespace_fd, 80) as server:
                assert talk(one.namespace_fd, two.ip, 80, server) == one.ip
                assert talk(None, two.ip, 80, server) == "172.30.0.1"
            with listen(None, 81) as server:
                assert talk(one.namespace_fd, one.gateway, 81, server) == one.ip

    asyncio.run(scenario())


def test_outside_sees_the_hosts_address(engine: Engine, outside: Outside) -> None:
    """What a container sends out is masqueraded; UDP too."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach()
            with listen(outside.namespace_fd, 80) as server:
                assert talk(box.namespace_fd, OUTSIDE, 80, server) == HOST_WAN
            with listen(outside.namespace_fd, 53, socket.SOCK_DGRAM) as server:
                assert talk_udp(box.namespace_fd, OUTSIDE, 53, server) == HOST_WAN

    asyncio.run(scenario())


def test_published_port_from_everywhere(engine: Engine, outside: Outside) -> None:
    """A published port answers outside (client's address kept), on the host's loopback and addresses, and to containers."""

    async def scenario() -> None:
        async with engine:
            box, other = await engine.attach(PortRequest(80, host_port=8080)), await engine.attach()
            with listen(box.namespace_fd, 80) as server:
                assert talk(outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
                assert talk(None, "127.0.0.1", 8080, server) == "172.30.0.1"
                assert talk(None, HOST_WAN, 8080, server) == HOST_WAN
                assert talk(None, "172.30.0.1", 8080, server) == "172.30.0.1"
                assert talk(other.namespace_fd, HOST_WAN, 8080, server) == "172.30.0.1"
                assert talk(box.namespace_fd, HOST_WAN, 8080, server) == "172.30.0.1"
                assert talk(box.namespace_fd, "172.30.0.1", 8080, server) == "172.30.0.1"
            await engine.network.release(box.record.container_id)
            assert not is_reachable(outside.namespace_fd, HOST_WAN, 8080)

    asyncio.run(scenario())
