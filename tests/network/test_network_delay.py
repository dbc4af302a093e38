"""Endpoints whose packets are late or lost: refused on a kernel without netem; it is told what tc tells it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time

import pytest
from network_world import DEADLINE_S, Engine, client_socket, inside, is_reachable, listen

from tare.errors import InvalidArgument, Unsupported
from tare.kernel import netlink_traffic
from tare.kernel.netlink_route import RouteSocket
from tare.network import outgoing, rates
from tare.network.rates import Delay, Rate, parse_rate
from tare.network.records import Endpoint, EndpointRequest
from tare.values.ids import new_id

MS = 1_000_000
DELAYED = Rate(delay=Delay(50 * MS))


def has_netem() -> bool:
    with RouteSocket() as sock:
        return netlink_traffic.has_netem(sock)


needs_netem = pytest.mark.skipif(not has_netem(), reason="the kernel has no sch_netem")
without_netem = pytest.mark.skipif(has_netem(), reason="the kernel has sch_netem")


# Recorded by strace of iproute2's tc 6.1: tcm_handle, tcm_parent, and what follows the header.
TC = {
    "root handle 2: netem limit 1000 delay 50ms": (
        0x20000,
        0xFFFFFFFF,
        "c2eb0b00 e8030000 00000000 00000000 00000000 00000000",
    ),
    "root handle 2: netem limit 1000 delay 50ms 10ms loss 1%": (
        0x20000,
        0xFFFFFFFF,
        "c2eb0b00 e8030000 295c8f02 00000000 00000000 5a620200",
    ),
    "root handle 2: netem limit 64 delay 1.5s 100us loss 0.5%": (
        0x20000,
        0xFFFFFFFF,
        "bca06501 40000000 14ae4701 00000000 00000000 1a060000",
    ),
    "root handle 2: netem limit 1000 loss 100%": (
        0x20000,
        0xFFFFFFFF,
        "00000000 e8030000 ffffffff 00000000 00000000 00000000",
    ),
    "parent 3:1 handle 4: netem limit 64 delay 20ms": (
        0x40000,
        0x30001,
        "b4c40400 40000000 00000000 00000000 00000000 00000000",
    ),
}


def words(text: str) -> tuple[dict[str, str], int, bool]:
    """The endpoint options, the limit, and whether it is in a bucket, of tc's words."""
    options: dict[str, str] = {}
    given = text.split()
    limit = int(given[given.index("limit") + 1])
    for name in ("delay", "loss"):
        if name in given:
            options[f"tare.network.{name}"] = given[given.index(name) + 1]
    after = given[given.index("delay") + 2 :] if "delay" in given else []
    if after and after[0] != "loss":
        options["tare.network.jitter"] = after[0]
    return options, limit, given[0] == "parent"


@pytest.mark.parametrize("command", TC)
def test_the_kernel_is_told_what_tc_tells_it(command: str) -> None:
    """Byte for byte: header, kind, options (little-endian, as recorded)."""
    options, limit, in_bucket = words(command)
    rate = parse_rate(options)
    assert rate is not None and rate.delay is not None
    late = rate.delay
    request = netlink_traffic.delay(7, late.delay_ns, late.jitter_ns, late.loss, limit, in_bucket=in_bucket)
    handle, parent, recorded = TC[command]
    head = b"\0\0\0\0" + b"".join(number.to_bytes(4, "little") for number in (7, handle, parent, 0))
    kind = b"\x0a\0\x01\0netem\0\0\0"
    assert request.body == head + kind + b"\x1c\0\x02\0" + bytes.fromhex(recorded)
    assert (request.kind, request.flags) == (36, 0x500)  # RTM_NEWQDISC; NLM_F_CREATE | NLM_F_REPLACE


def test_a_bucket_has_the_delay_within_and_a_bound_of_its_own() -> None:
    """With a rate the bucket is the parent; as much waits as the rate lets pass in the delay, neither fewer than 64
    packets nor more than 1000."""
    bucket, late = rates.requests(7, Rate(125_000, 32_768, Delay(20 * MS)), had=False)
    assert b"tbf\0" in bucket.body and bucket.body[8:12] == bytes.fromhex("00000300")
    assert late.body[8:16] == bytes.fromhex("00000400 01000300")
    found = []
    for rate, delay_ms in ((125_000, 20), (1_250_000, 50), (1_250_000_000, 50)):
        late = rates.requests(7, Rate(rate, 32_768, Delay(delay_ms * MS)), had=False)[1]
        found.append(int.from_bytes(late.body[40:44], "little"))
    assert found == [83, 315, 1000]


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"delay": "50ms"}, Rate(delay=Delay(50 * MS))),
        ({"delay": "1.5s", "jitter": "200us"}, Rate(delay=Delay(1500 * MS, 200_000))),
        ({"loss": "0.5%"}, Rate(delay=Delay(loss=0.005))),
        ({"delay": "1MS", "rate": "8mbit"}, Rate(1_000_000, 32_768, Delay(MS))),
        ({"delay": ""}, None),
    ],
)
def test_delays_are_written_as_for_tc(options: dict[str, str], rate: Rate | None) -> None:
    """Times with us, ms and s; a share of packets in percent."""
    assert parse_rate({f"tare.network.{name}": value for name, value in options.items()}) == rate


@pytest.mark.parametrize(
    "options",
    [
        {"delay": "50"},
        {"delay": "soon"},
        {"delay": "-1ms"},
        {"delay": "61s"},
        {"delay": "0.0001us"},
        {"delay": "9" * 400 + "s"},
        {"jitter": "1ms"},
        {"delay": "1ms", "jitter": "2ms"},
        {"loss": "5"},
        {"loss": "101%"},
        {"loss": "0%"},
        {"loss": "nan%"},
    ],
)
def test_what_is_no_delay_is_refused(options: dict[str, str]) -> None:
    """No unit, no number, out of bounds, more jitter than delay, a jitter without one."""
    with pytest.raises(InvalidArgument, match=r"delay|jitter|loss"):
        parse_rate({f"tare.network.{name}": value for name, value in options.items()})


@without_netem
def test_a_kernel_without_netem_is_named_and_nothing_is_left(engine: Engine) -> None:
    """At start, at connect and at update: the error names sch_netem, and all is as before."""

    async def scenario() -> None:
        async with engine:
            network = engine.network
            with pytest.raises(Unsupported, match="sch_netem"):
                await network.attach(new_id(), EndpointRequest(container_name="box", rate=DELAYED))
            assert network.endpoints() == [] and engine.ports_of_bridge() == []
            box = await network.attach(new_id(), EndpointRequest(container_name="box", rate=Rate(125_000, 32_768)))
            with pytest.raises(Unsupported, match="sch_netem"):
                await network.set_rate(box.record.container_id, box.record.network_id, DELAYED)
            assert network.endpoint(box.record.container_id) == box.record
            with pytest.raises(Unsupported, match="sch_netem"):
                network.check_rate(Rate(delay=Delay(loss=0.5)))
            network.check_rate(Rate(125_000, 32_768))

    asyncio.run(scenario())


def round_trip_ns(sender: int | None, server: socket.socket, address: str) -> int:
    """How long a datagram and its answer take, once both ends know each other's MAC."""
    with client_socket(sender, socket.SOCK_DGRAM) as client:
        client.connect((address, 9))
        for _ in range(2):
            begin = time.monotonic_ns()
            client.send(b"ping")
            _, seen = server.recvfrom(16)
            server.sendto(b"pong", seen)
            assert client.recv(16) == b"pong"
        return time.monotonic_ns() - begin


@needs_netem
@pytest.mark.parametrize("rate", [0, 1_250_000], ids=["alone", "in a bucket"])
def test_a_delay_holds_in_both_directions_and_changes_live(engine: Engine, rate: int) -> None:
    """A round trip takes twice the delay at least, from the host and from a neighbour; another delay counts for the
    running container; without it both queues are gone. A connection is open all the while."""

    def late(delay_ms: int) -> Rate:
        return Rate(rate, 65_536 if rate else 0, Delay(delay_ms * MS))

    async def scenario() -> None:
        async with engine:
            box = await engine.network.attach(new_id(), EndpointRequest(container_name="box", rate=late(50)))
            other = await engine.attach(name="other")
            where = box.record.container_id, box.record.network_id
            with (
                listen(box.namespace_fd, 9, socket.SOCK_DGRAM) as server,
                listen(box.namespace_fd, 80) as web,
                client_socket(None) as open_all_the_while,
            ):
                open_all_the_while.connect((box.ip, 80))
                accepted, _ = web.accept()
                assert round_trip_ns(None, server, box.ip) >= 100 * MS
                assert round_trip_ns(other.namespace_fd, server, box.ip) >= 100 * MS
                await engine.network.set_rate(*where, late(150))
                assert round_trip_ns(None, server, box.ip) >= 300 * MS
                assert kinds(box) == [["tbf", "netem"] if rate else ["netem"]] * 2
                if rate:  # the same rate, in a bucket without netem
                    await engine.network.set_rate(*where, Rate(rate, 65_536))
                    assert kinds(box) == [["tbf"]] * 2
                    await engine.network.set_rate(*where, late(50))
                await engine.network.set_rate(*where, None)
                assert all("netem" not in found for found in kinds(box))
                round_trip_ns(None, server, box.ip)
                with accepted:
                    accepted.sendall(b"still")
                    assert open_all_the_while.recv(16) == b"still"

    asyncio.run(scenario())


def kinds(box: Endpoint) -> list[list[str]]:
    """The queues at both links of an endpoint: the root's first."""
    found = []
    for name in (box.record.link, outgoing.link_of(box.record)):
        shown = subprocess.run(["tc", "qdisc", "show", "dev", name], capture_output=True, text=True, timeout=DEADLINE_S)
        lines = [line.split() for line in shown.stdout.splitlines()]
        found.append([line[1] for line in sorted(lines, key=lambda line: "root" not in line) if line[1] != "ingress"])
    return found


@needs_netem
def test_large_frames_pass_a_bucket_with_a_delay(engine: Engine) -> None:
    """A megabyte over TCP, whose frames the bucket must split, arrives whole: the queues don't come to a stop."""

    async def scenario() -> None:
        async with engine:
            rate = Rate(12_500_000, 8192, Delay(5 * MS))
            box = await engine.network.attach(new_id(), EndpointRequest(container_name="box", rate=rate))
            with listen(box.namespace_fd, 80) as server, client_socket(None, timeout=DEADLINE_S * 4) as client:
                client.connect((box.ip, 80))
                accepted, _ = server.accept()
                with accepted:
                    accepted.settimeout(DEADLINE_S * 4)
                    for sender, receiver in ((client, accepted), (accepted, client)):
                        sending = asyncio.to_thread(sender.sendall, bytes(1 << 20))
                        receiving = asyncio.to_thread(receive, receiver, 1 << 20)
                        await asyncio.gather(sending, receiving)

    asyncio.run(scenario())


def receive(sock: socket.socket, size: int) -> None:
    while size:
        data = sock.recv(min(size, 65_536))
        assert data
        size -= len(data)


@needs_netem
def test_what_is_lost_is_lost(engine: Engine) -> None:
    """A loss of all: nothing arrives until it is taken back."""

    async def scenario() -> None:
        async with engine:
            gone = parse_rate({rates.LOSS: "100%"})
            box = await engine.network.attach(new_id(), EndpointRequest(container_name="box", rate=gone))
            with listen(box.namespace_fd, 80):
                assert not is_reachable(None, box.ip, 80)
                assert box.namespace_fd is not None
                with inside(box.namespace_fd), RouteSocket() as sock:
                    assert sock.link("eth0") is not None
                await engine.network.set_rate(box.record.container_id, box.record.network_id, None)
                assert is_reachable(None, box.ip, 80, expected=True)

    asyncio.run(scenario())
