"""The host's own IPv6: what it has of a router stays when it begins to forward for its containers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from pathlib import Path

from network_world import DEADLINE_S, Engine, Outside, inside

from tare.kernel.netlink_route import RouteSocket
from tare.network.records import NetworkRequest

_ADVERTISES = 134
_LIFETIME_S = 1800


def has_router() -> bool:
    with RouteSocket() as sock:
        return any(route.destination is None for route in sock.routes(socket.AF_INET6))


def accepts(link: str) -> str:
    return Path(f"/proc/sys/net/ipv6/conf/{link}/accept_ra").read_text().strip()


def advertise(outside: Outside) -> None:
    """What a router says (RFC 4861, 4.2), until the host believes it; addresses take a moment to be usable."""
    with inside(outside.namespace_fd):
        router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex("eth0")
    message = struct.pack(">BBHBBHII", _ADVERTISES, 0, 0, 64, 0, _LIFETIME_S, 0, 0)
    deadline = time.monotonic() + DEADLINE_S
    with router:
        while not has_router() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # until it has an address of its own
                router.sendto(message, ("ff02::1", 0, 0, index))
            time.sleep(0.05)
    assert has_router()


def test_a_host_keeps_its_router(engine: Engine, outside: Outside) -> None:
    """The first network with IPv6 doesn't take the host's own way out; links without a router stay as they are."""

    async def scenario() -> None:
        async with engine:
            advertise(outside)
            assert (accepts("wan0"), accepts("lo")) == ("1", "1")
            await engine.network.create(NetworkRequest(name="own", ipv6=True))
            assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1"
            assert (accepts("wan0"), accepts("lo")) == ("2", "1")
            assert has_router()

    asyncio.run(scenario())
