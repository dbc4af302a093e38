"""The room without root: in namespaces that an ordinary user made, with a program outside as its uplink."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from network_world import HOST_WAN, OUTSIDE, Outside, listen, private_host
from rootless_host import NOBODY
from rootless_world import (
    TCP,
    UDP,
    Refused,
    Rootless,
    begin,
    eventually,
    is_gone,
    machine,
    missing,
    naming,
    processes_here,
    reached,
    telling,
    told,
)

from tare.kernel.netlink_route import RouteSocket
from tare.kernel.nftables import NftablesSocket

PROGRAMS = ("slirp4netns", "pasta")


class World:
    """What one test, or several, look at."""

    def __init__(self, outside: Outside, engine: Rootless, program: str) -> None:
        self.outside_fd = outside.namespace_fd
        self.engine = engine
        self.program = program


def _world(program: str) -> Iterator[World]:
    reason = missing(program)
    if reason:
        pytest.skip(reason)
    before = len(os.listdir("/proc/self/fd"))
    with private_host(), machine() as outside:
        engine = Rootless(program)
        try:
            yield World(outside, engine, program)
        finally:
            engine.close()
    assert len(os.listdir("/proc/self/fd")) == before


def can_listen(port: int) -> bool:
    """Whether the host has a port for itself."""
    try:
        listen(None, port).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module", params=PROGRAMS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One engine for all tests that leave it as it was, by each program."""
    yield from _world(request.param)


@pytest.fixture(scope="module")
def slirp() -> Iterator[World]:
    """One whose ports come and go while it runs."""
    yield from _world("slirp4netns")


@pytest.fixture(params=PROGRAMS)
def fresh(request: pytest.FixtureRequest) -> Iterator[World]:
    """One to be broken."""
    yield from _world(request.param)


def test_nothing_of_the_host_is_touched(world: World) -> None:
    """The engine is an ordinary user there; its bridge and its table are in namespaces of that user's."""
    status = world.engine.ask("status")
    assert isinstance(status, dict)
    assert status["uid_map"] == ["0", str(NOBODY), "1"]
    assert {"tn0", "uplink0"} <= set(status["links"])
    with RouteSocket() as sock, NftablesSocket() as nft:
        assert {link.name for link in sock.links()} == {"lo", "wan0"}
        assert nft.base_chains() == []
    for pid in (world.engine.process.pid, world.engine.engine_pid, world.engine.program_pid()):
        assert os.stat(f"/proc/{pid}").st_uid in (NOBODY, 0)
        with open(f"/proc/{pid}/status") as file:
            assert f"Uid:\t{NOBODY}\t{NOBODY}" in file.read()


def test_a_client_outside_reaches_a_published_port(world: World) -> None:
    """TCP and UDP, and the container sees the client's own address."""
    world.engine.attach("bridge", "tcp//8080/0/80", "udp//8080/0/80")
    for kind in (TCP, UDP):
        assert reached(world.outside_fd, kind, HOST_WAN, 8080) == OUTSIDE


def test_a_port_on_the_hosts_loopback_is_open_there_only(world: World) -> None:
    world.engine.attach("bridge", "tcp/127.0.0.1/8081/0/80")
    assert reached(None, TCP, "127.0.0.1", 8081)
    assert not told(world.outside_fd, TCP, HOST_WAN, 8081)
    assert not told(None, TCP, HOST_WAN, 8081)


def test_a_container_reaches_a_server_outside(world: World) -> None:
    """TCP and UDP, and it is seen as the host."""
    box, _ = world.engine.attach()
    with telling(world.outside_fd, 7000):
        assert world.engine.dial(box, "tcp", OUTSIDE, 7000) == HOST_WAN
        assert world.engine.dial(box, "udp", OUTSIDE, 7000) == HOST_WAN


def test_a_container_does_not_reach_the_hosts_loopback(world: World) -> None:
    """CVE-2020-8558: neither by the uplink's own address, nor by the bridge's."""
    box, _ = world.engine.attach()
    with telling(None, 7001, "127.0.0.1"):
        assert reached(None, TCP, "127.0.0.1", 7001)
        for address in ("10.0.2.2", "10.0.2.3", "172.30.0.1"):
            with pytest.raises(Refused):
                world.engine.ask("dial", box, "tcp", address, 7001, 0.3)


def test_containers_find_each_other_by_name(world: World) -> None:
    """And one on another network doesn't reach them."""
    world.engine.ask("create", "tenant")
    one, _ = world.engine.attach("tenant")
    other, address = world.engine.attach("tenant")
    stranger, _ = world.engine.attach()
    assert world.engine.ask("lookup", one, other) == [address]
    assert world.engine.dial(one, "tcp", address, 80)
    with pytest.raises(Refused):
        world.engine.ask("dial", stranger, "tcp", address, 80, 0.3)


def test_names_are_asked_of_a_resolver_on_the_hosts_loopback(world: World) -> None:
    """The host's resolv.conf names 127.0.0.1, which in the engine's namespace would be the engine's."""
    world.engine.ask("create", "named")
    box, _ = world.engine.attach("named")
    with naming("far.example", OUTSIDE):
        eventually(lambda: world.engine.ask("lookup", box, "far.example") == [OUTSIDE])


def test_a_container_reaches_its_own_published_port_by_the_hosts_address(slirp: World) -> None:
    box, _ = slirp.engine.attach("bridge", "tcp//8090/0/80")
    assert slirp.engine.dial(box, "tcp", HOST_WAN, 8090)


def test_a_server_may_speak_first(slirp: World) -> None:
    """As SSH and mail do; pasta of 2023 lets such a client wait."""
    slirp.engine.attach("bridge", "tcp//8091/0/80")
    assert reached(slirp.outside_fd, TCP, HOST_WAN, 8091, speaks=False) == OUTSIDE


def test_ports_come_and_go_while_connections_are_open(slirp: World) -> None:
    """One that was there before goes on through the same uplink."""
    box, _ = slirp.engine.attach()
    with listen(slirp.outside_fd, 7100) as server:
        slirp.engine.ask("hold", box, OUTSIDE, 7100)
        accepted, _seen = server.accept()
        with accepted:
            pid = slirp.engine.program_pid()
            other, _ = slirp.engine.attach("bridge", "tcp//8101/0/80", "udp//8101/0/80")
            for kind in (TCP, UDP):
                assert reached(slirp.outside_fd, kind, HOST_WAN, 8101) == OUTSIDE
            slirp.engine.ask("release", other)
            assert not told(slirp.outside_fd, TCP, HOST_WAN, 8101)
            assert can_listen(8101)
            slirp.engine.ask("say", "still")
            assert accepted.recv(16) == b"still"
    assert slirp.engine.program_pid() == pid


def test_a_port_that_the_host_uses_is_refused_in_dockers_words(slirp: World) -> None:
    with listen(None, 8110), listen(None, 8110, UDP):
        for protocol in ("tcp", "udp"):
            words = f"listen {protocol}4 0.0.0.0:8110: bind: address already in use"
            with pytest.raises(Refused, match=words):
                slirp.engine.attach("bridge", f"{protocol}//8110/0/80")
        slirp.engine.attach("bridge", "tcp//8110/8119/80")  # the first free one of a range
        assert reached(slirp.outside_fd, TCP, HOST_WAN, 8111) == OUTSIDE


def test_a_port_is_at_one_of_the_hosts_addresses(slirp: World) -> None:
    """Inside there is one address for all of them; who asks for a second is told in Docker's words."""
    slirp.engine.attach("bridge", f"tcp/{HOST_WAN}/8150/0/80")
    assert reached(slirp.outside_fd, TCP, HOST_WAN, 8150) == OUTSIDE
    assert not told(None, TCP, "127.0.0.1", 8150)
    with pytest.raises(Refused, match=r"listen tcp4 127\.0\.0\.1:8150: bind: address already in use"):
        slirp.engine.attach("bridge", "tcp/127.0.0.1/8150/0/80")


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("tcp//80/0/80", "listen tcp4 0.0.0.0:80: bind: permission denied"),
        ("tcp/192.0.2.77/8120/0/80", "listen tcp4 192.0.2.77:8120: bind: cannot assign requested address"),
        ("sctp//8120/0/80", "Unsupported: publishing sctp ports through slirp4netns"),
        ("tcp/::/8120/0/80", "Unsupported: publishing .*on an IPv6 address"),
    ],
)
def test_what_the_user_may_not_have_is_refused(slirp: World, port: str, words: str) -> None:
    """Nothing of the container is left."""
    before = slirp.engine.ask("status")
    with pytest.raises(Refused, match=words):
        slirp.engine.attach("bridge", port)
    assert slirp.engine.ask("status") == before


def test_a_hundred_ports(slirp: World) -> None:
    box, _ = slirp.engine.attach("bridge", *(f"tcp//{number}/0/80" for number in range(20000, 20100)))
    assert reached(slirp.outside_fd, TCP, HOST_WAN, 20099) == OUTSIDE
    slirp.engine.ask("release", box)
    assert not told(slirp.outside_fd, TCP, HOST_WAN, 20099)


def test_root_of_a_user_namespace_sends_large_transactions(slirp: World) -> None:
    """Thousands of ports are more than a socket's buffer holds at first, and only the host's root may force it."""
    slirp.engine.ask("publish_many", 10000)


def test_no_network_hides_one_of_the_hosts(slirp: World) -> None:
    """The first of the pools is beside one that the host reaches."""
    assert slirp.engine.ask("create", "third") == "172.18.0.0/16"


def test_an_engine_that_is_started_anew_finds_its_ports_open(fresh: World) -> None:
    """They are open all the while, by the same program; what belonged to containers that ended meanwhile is closed."""
    fresh.engine.attach("bridge", "tcp//8160/0/80", "udp//8160/0/80")
    ended, _ = fresh.engine.attach("bridge", "tcp//8161/0/80")
    assert reached(fresh.outside_fd, TCP, HOST_WAN, 8160) == OUTSIDE
    pid = fresh.engine.program_pid()
    assert fresh.engine.ask("crash", ended) == fresh.program
    for kind in (TCP, UDP):
        assert reached(fresh.outside_fd, kind, HOST_WAN, 8160) == OUTSIDE
    eventually(lambda: can_listen(8161))
    if fresh.program == "slirp4netns":
        assert fresh.engine.program_pid() == pid
    fresh.engine.attach("bridge", "tcp//8161/0/80")
    assert reached(fresh.outside_fd, TCP, HOST_WAN, 8161) == OUTSIDE


def test_an_uplink_that_dies_is_started_again(fresh: World) -> None:
    """With all its ports; and the engine says so as long as it is gone."""
    box, _ = fresh.engine.attach("bridge", "tcp//8130/0/80")
    assert reached(fresh.outside_fd, TCP, HOST_WAN, 8130) == OUTSIDE
    pid = fresh.engine.program_pid()
    with fresh.engine.without_program(fresh.program):
        fresh.engine.kill(pid)
        eventually(lambda: is_gone(pid))
        eventually(lambda: "reach nothing outside" in str(fresh.engine.ask("warnings")))
    assert reached(fresh.outside_fd, TCP, HOST_WAN, 8130) == OUTSIDE
    assert fresh.engine.program_pid() != pid
    with telling(fresh.outside_fd, 7000):
        assert fresh.engine.dial(box, "tcp", OUTSIDE, 7000) == HOST_WAN
    eventually(lambda: fresh.engine.ask("warnings") == [])
    # and nothing outlives an engine that is killed
    pids = [fresh.engine.process.pid, fresh.engine.engine_pid, fresh.engine.program_pid()]
    fresh.engine.kill(fresh.engine.engine_pid)
    for pid in pids:
        eventually(lambda p=pid: is_gone(p))  # type: ignore[misc]


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_outlives_an_engine_that_dies_as_it_starts(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the program was started."""
    reason = missing(program)
    if reason:
        pytest.skip(reason)
    monkeypatch.setenv("TARE_FAULT", "network.uplink.started:kill")
    with private_host(), machine():
        died = begin(program)
        with died.stdin or nullcontext(), died.stdout or nullcontext():
            died.wait(60)
        with RouteSocket() as sock:
            assert {link.name for link in sock.links()} == {"lo", "wan0"}
        assert processes_here() == {os.getpid()}


def test_nothing_outlives_a_keeper_that_is_killed(fresh: World) -> None:
    """But the engine lives, and says what is wrong."""
    program = fresh.engine.program_pid()
    fresh.engine.kill(fresh.engine.process.pid)
    eventually(lambda: is_gone(program))
    warnings = eventually(lambda: fresh.engine.ask("warnings"))
    assert isinstance(warnings, list) and "keeper is gone" in warnings[0]
    with pytest.raises(Refused, match="keeper is gone"):
        fresh.engine.attach("bridge", "tcp//8140/0/80")
