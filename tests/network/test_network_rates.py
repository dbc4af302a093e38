"""Endpoints that are only so fast: the kernel's counters say that they were held back, in both directions."""

from __future__ import annotations

import asyncio
import socket

import pytest
from network_world import Engine, client_socket, delete_link, inside, listen, talk

from tare.errors import InvalidArgument
from tare.kernel.netlink_route import RouteSocket, set_identity
from tare.kernel.netlink_stacked import new_plain
from tare.kernel.netlink_traffic import Queue, root_queue, unlimit_rate
from tare.network import outgoing
from tare.network.rates import Rate, parse_rate
from tare.network.records import Endpoint, EndpointRequest
from tare.values.ids import new_id


def queue_of(name: str) -> Queue:
    with RouteSocket() as sock:
        link = sock.link(name)
        return root_queue(sock, link.ifindex) if link is not None else Queue("", 0, 0, 0)


def queues(box: Endpoint) -> tuple[Queue, Queue]:
    """The queue towards the container, and the one from it: both are the host's."""
    return queue_of(box.record.link), queue_of(outgoing.link_of(box.record))


def queue_inside(box: Endpoint) -> Queue:
    assert box.namespace_fd is not None
    with inside(box.namespace_fd):
        return queue_of("eth0")


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


SLOW = Rate(125_000, 32_768)


def test_what_a_container_does_does_not_make_it_faster(engine: Engine) -> None:
    """Root with CAP_NET_ADMIN takes away all queues in the container: what leaves it is held back as before, and what
    gets through is the container's own, under the eyes of the guard; the queue goes with the endpoint."""

    async def scenario() -> None:
        async with engine:
            box = await limited(engine, SLOW)
            assert box.namespace_fd is not None and queue_inside(box).kind != "tbf"
            with inside(box.namespace_fd), RouteSocket() as sock:
                link = sock.link("eth0")
                assert link is not None
                sock.execute((unlimit_rate(link.ifindex),))
            flood(box.namespace_fd, None, box.gateway)
            assert queues(box)[1].drops > 200
            with listen(None, 80) as server:
                assert talk(box.namespace_fd, box.gateway, 80, server) == box.ip
            name = outgoing.link_of(box.record)
            await engine.network.release(box.record.container_id)
            await engine.network.wait_released()
            with RouteSocket() as sock:
                assert sock.link(name) is None

    asyncio.run(scenario())


def test_a_queue_that_is_lost_comes_back(engine: Engine) -> None:
    """Until repair nothing passes without the limit; one left over by a crash is taken away by the next engine."""

    async def scenario() -> None:
        async with engine:
            box = await limited(engine, SLOW)
            name = outgoing.link_of(box.record)
            delete_link(name)
            assert await engine.network.mend() == [
                f"link of container {box.record.container_id[:12]} to network bridge"
            ]
            assert queues(box)[1].kind == "tbf" and await engine.network.mend() == []
            flood(box.namespace_fd, None, box.gateway)
            assert queues(box)[1].drops > 200
            free = await limited(engine, None)
            with RouteSocket() as sock:
                alias = f"{box.record.network_id} {new_id()}"
                sock.execute((new_plain("vr0123456789ab", "ifb"), set_identity("vr0123456789ab", alias)))
            await engine.network.restore({box.record.container_id, free.record.container_id})
            with RouteSocket() as sock:
                assert sock.link("vr0123456789ab") is None and sock.link(name) is not None

    asyncio.run(scenario())


def test_where_the_kernel_can_not_the_container_holds_itself_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without ifb: the bucket is in the container, and `info` says so."""

    async def scenario() -> None:
        async with engine:
            assert engine.network.warnings() == []
            monkeypatch.setattr(outgoing, "new_plain", lambda name, _kind: new_plain(name, "ifb-that-is-not"))
            box = await limited(engine, SLOW)
            assert queue_inside(box).kind == "tbf" and queues(box)[1].kind == ""
            assert engine.network.warnings() == [outgoing.WARNING]
            assert await engine.network.mend() == []
            await engine.network.set_rate(box.record.container_id, box.record.network_id, None)
            assert queue_inside(box).kind != "tbf"

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
    ],
)
def test_what_can_not_be_is_refused(options: dict[str, str], error: type[Exception]) -> None:
    """A wrong rate, a burst below a packet, an unknown option."""
    with pytest.raises(error, match=r"rate|burst|option"):
        parse_rate(options)
