"""Host ports: held honestly, refused with Docker's words."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import time
from pathlib import Path

import pytest
from network_world import Engine, listen, talk

from tare.errors import InvalidArgument, ResourceExhausted
from tare.network.records import PortBinding, PortRequest


def bound(port: int, kind: int = socket.SOCK_STREAM, reuse: bool = False) -> socket.socket:
    holder = socket.socket(socket.AF_INET, kind)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
    holder.bind(("0.0.0.0", port))
    return holder


def test_port_of_another_container(engine: Engine) -> None:
    """A port that another container has is refused in Docker's words and with its owner; the loser leaves nothing."""

    async def scenario() -> None:
        async with engine:
            await engine.attach(PortRequest(80, host_port=8080), name="shop")
            said = r"driver failed programming external connectivity on endpoint web \([0-9a-f]{64}\): "
            said += r"Bind for 0.0.0.0:8080 failed: port is already allocated \(by container shop\)"
            with pytest.raises(ResourceExhausted, match=said):
                await engine.attach(PortRequest(81, host_port=8081), PortRequest(80, host_port=8080), name="web")
            with pytest.raises(ResourceExhausted, match=r"Bind for 127.0.0.1:8080 failed: port is already allocated"):
                await engine.attach(PortRequest(80, host_ip="127.0.0.1", host_port=8080))
            assert len(engine.network.endpoints()) == 1
            bound(8081).close()

    asyncio.run(scenario())


def test_port_of_a_host_process(engine: Engine) -> None:
    """A port that a process of the host has is refused, whether TCP or UDP, listening or only bound."""

    async def scenario() -> None:
        async with engine:
            with listen(None, 8080), bound(8081), bound(8082, socket.SOCK_DGRAM):
                for port, protocol in ((8080, "tcp"), (8081, "tcp"), (8082, "udp")):
                    said = f"listen {protocol}4 0.0.0.0:{port}: bind: address already in use"
                    with pytest.raises(ResourceExhausted, match=said):
                        await engine.attach(PortRequest(80, protocol, host_port=port))
            await engine.attach(PortRequest(80, "tcp", host_port=8082))
            with pytest.raises(ResourceExhausted, match=r"listen tcp4 192.0.2.99:80: bind: cannot assign requested"):
                await engine.attach(PortRequest(80, host_ip="192.0.2.99", host_port=80))

    asyncio.run(scenario())


def test_host_process_cannot_take_a_published_port(engine: Engine) -> None:
    """While a port is published no process of the host gets it; afterwards one does."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(80, host_port=8080), PortRequest(53, "udp", host_port=5353))
            for port, kind in ((8080, socket.SOCK_STREAM), (5353, socket.SOCK_DGRAM)):
                with pytest.raises(OSError, match="in use"):
                    bound(port, kind, reuse=True)
            await engine.network.release(box.record.container_id)
            bound(8080).close()

    asyncio.run(scenario())


def test_port_with_dying_connections_is_free(engine: Engine) -> None:
    """A port whose last server left connections in TIME_WAIT can be published, and is then held as firmly."""

    async def scenario() -> None:
        async with engine:
            with listen(None, 8080) as server:
                client = socket.create_connection(("127.0.0.1", 8080))
                accepted, _ = server.accept()
                accepted.close()  # the side that closes first keeps TIME_WAIT
                assert client.recv(1) == b""
                client.close()
            box = await engine.attach(PortRequest(80, host_port=8080))
            with listen(box.namespace_fd, 80) as inside:
                assert talk(None, "127.0.0.1", 8080, inside)
            with pytest.raises(OSError, match="in use"), bound(8080, reuse=True) as other:
                other.listen()

    asyncio.run(scenario())


def test_random_port_is_a_free_one(engine: Engine) -> None:
    """Without a host port the engine takes a free one of the kernel's own range, skipping those in use."""

    async def scenario() -> None:
        async with engine:
            Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40003")
            with bound(40001):
                ports = [(await engine.attach(PortRequest(80))).ports[0].host_port for _ in range(3)]
                assert ports == [40000, 40002, 40003]
                with pytest.raises(ResourceExhausted, match=re.escape("Bind for 0.0.0.0:40000 failed")):
                    await engine.attach(PortRequest(80))

    asyncio.run(scenario())


def test_range_gives_its_first_free_port(engine: Engine) -> None:
    """A host range for one container port means its first free one."""

    async def scenario() -> None:
        async with engine:
            with bound(8000):
                first = await engine.attach(PortRequest(80, host_port=8000, host_port_last=8001))
                assert first.ports == (
                    PortBinding(80, "tcp", "0.0.0.0", 8001),
                    PortBinding(80, "tcp", "::", 8001),
                )

    asyncio.run(scenario())


def test_addresses_that_cannot_be_published_on(engine: Engine) -> None:
    """Nonsense is refused as such."""

    async def scenario() -> None:
        async with engine:
            with pytest.raises(InvalidArgument, match="invalid IP address: x"):
                await engine.attach(PortRequest(80, host_ip="x"))
            with pytest.raises(InvalidArgument, match="invalid proto: dccp"):
                await engine.attach(PortRequest(80, "dccp"))

    asyncio.run(scenario())


def test_ports_leave_descriptors_for_all_else(host: None, tmp_path: Path) -> None:
    """Each port takes a descriptor: half of what the engine may have, if that is few, and all but some thousands of
    many are for ports. Who wants more is told so, and nothing is held of it; others go on."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1200, limits[1]))

    async def scenario() -> None:
        async with Engine(tmp_path) as engine:
            many = tuple(PortRequest(port, host_ip="0.0.0.0", host_port=port) for port in range(10_000, 10_700))
            with pytest.raises(ResourceExhausted, match=r"the engine holds 600 ports of the host .* \(LimitNOFILE"):
                await engine.attach(*many)
            box = await engine.attach(*many[:600])
            with pytest.raises(ResourceExhausted, match="the engine holds 600 ports"):
                await engine.attach(many[-1])
            await engine.attach()
            await engine.network.release(box.record.container_id)
            await engine.attach(many[-1])

    try:
        asyncio.run(scenario())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_many_ports_of_a_live_container_change(engine: Engine) -> None:
    """All of a range but one are taken back at once, and the one stays open: no port is looked for among all others."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(*(PortRequest(port, host_port=port) for port in range(10_000, 12_000)))
            before = time.process_time()
            gone = engine.network.unpublish(box.record.container_id, lambda port: port.host_port != 10_000)
            assert time.process_time() - before < 10
            assert gone == 1999 * 2 and engine.published() == 1
            with listen(box.namespace_fd, 10_000) as server:
                assert talk(None, "127.0.0.1", 10_000, server)

    asyncio.run(scenario())


def test_thousands_of_ports_at_once(engine: Engine) -> None:
    """A range of 2,000 ports is published in one transaction and goes away again."""

    async def scenario() -> None:
        async with engine:
            requests = tuple(PortRequest(port, host_port=port) for port in range(10_000, 12_000))
            box = await engine.attach(*requests)
            with listen(box.namespace_fd, 11_999) as server:
                assert talk(None, "127.0.0.1", 11_999, server)
            await engine.network.release(box.record.container_id)
            assert engine.published() == 0

    asyncio.run(scenario())
