"""Endpoints that are only so fast: the kernel's counters say that they were held back, in both directions."""

from __future__ import annotations

import asyncio
import socket

import pytest
from network_world import Engine, client_socket, delete_link, inside, listen

from tare.errors import InvalidArgument, Unsupported
from tare.kernel.netlink_route import RouteSocket
from tare.kernel.netlink_traffic import Queue, root_queue
from tare.network.rates import Rate, parse_rate
from tare.network.records import Endpoint, EndpointRequest
from tare.values.ids import new_id


def queues(box: Endpoint) -> tuple[Queue, Queue]:
    """The queue towards the container, and the one from it."""
    assert box.namespace_fd is not None
    with RouteSocket() as sock:
        link = sock.link(box.record.link)
        assert link is not None
        towards = root_queue(sock, link.ifindex)
    with inside(box.namespace_fd), RouteSocket() as sock:
        link = sock.link("eth0")
        assert link is not None
        return towards, root_queue(sock, link.ifindex)


def flood(sender: int | None, receiver: int | None, address: str) -> None:
    """Sends far more datagrams at once than a burst holds."""
    with listen(receiver, 9, socket.SOCK_DGRAM), client_socket(sender, socket.SOCK_DGRAM) as client:
        client.connect((address, 9))
        for _ in range(400):
            client.send(bytes(1400))


async def limited(engine: Engine, rate: Rate | None) -> Endpoint:
    return await engine.network.attach(new_id(), EndpointRequest(container_name="box", rate=rate))


def test_both_directions_are_held_back_and_released_live(engine: Engine) -> None:
    """A flood at 1 mbit is mostly dropped, either way; another rate and none at all take effect on the running
    container; a link that was made anew has its rate again."""

    async def scenario() -> None:
        async with engine:
            box = await limited(engine, parse_rate({"tare.network.rate": "1mbit", "tare.network.burst": "32k"}))
            assert box.record.rate == Rate(125_000, 32_768)
            flood(None, box.namespace_fd, box.ip)
            flood(box.namespace_fd, None, box.gateway)
            for queue in queues(box):
                assert queue.kind == "tbf" and queue.overlimits > 0 and queue.drops > 200
            network_id = box.record.network_id
            await engine.network.set_rate(box.record.container_id, network_id, Rate(12_500_000_000, 1 << 20))
            before = queues(box)
            flood(None, box.namespace_fd, box.ip)
            assert [queue.drops for queue in queues(box)] == [queue.drops for queue in before]
            await engine.network.set_rate(box.record.container_id, network_id, None)
            assert all(queue.kind != "tbf" for queue in queues(box))
            await engine.network.set_rate(box.record.container_id, network_id, Rate(125_000, 32_768))
            delete_link(box.record.link)
            await engine.network.mend()
            assert [queue.kind for queue in queues(box)] == ["tbf", "tbf"]
            free = await limited(engine, None)
            assert all(queue.kind != "tbf" for queue in queues(free))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "rate"),
    [("8kbit", 1000), ("10mbit", 1_250_000), ("1.5Mbit", 187_500), ("1gbit", 125_000_000), ("2mbps", 2_000_000)],
)
def test_rates_are_written_as_for_tc(text: str, rate: int) -> None:
    """bit and its multiples are bits, bps and its multiples bytes a second (man 8 tc)."""
    found = parse_rate({"tare.network.rate": text})
    assert found is not None and found.rate == rate


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tare.network.rate": "fast"}, InvalidArgument),
        ({"tare.network.rate": "10"}, InvalidArgument),
        ({"tare.network.rate": "1bit"}, InvalidArgument),
        ({"tare.network.rate": "900gbit"}, InvalidArgument),
        ({"tare.network.rate": "-1mbit"}, InvalidArgument),
        ({"tare.network.rate": "1mbit", "tare.network.burst": "10"}, InvalidArgument),
        ({"tare.network.burst": "64k"}, InvalidArgument),
        ({"tare.network.speed": "1mbit"}, InvalidArgument),
        ({"tare.network.delay": "10ms"}, Unsupported),
    ],
)
def test_what_can_not_be_is_refused(options: dict[str, str], error: type[Exception]) -> None:
    """A wrong rate, a burst below a packet, an unknown option; a delay by name, as there is none."""
    with pytest.raises(error, match=r"rate|burst|option|delay"):
        parse_rate(options)
