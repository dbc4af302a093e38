"""tare run --network NAME,rate=…: real containers that are only so fast."""

from __future__ import annotations

from support.engine import Engine
from support.tared import Tared
from tare.kernel import netlink_traffic
from tare.kernel.netlink_route import RouteSocket


def has_netem() -> bool:
    with RouteSocket() as sock:
        return netlink_traffic.has_netem(sock)


def option(engine: Engine, box: str) -> object:
    return engine.inspect(box)["NetworkSettings"]["Networks"]["one"]["DriverOpts"]


def buckets(engine: Engine, box: str) -> list[str]:
    """What tc says of either direction: to the container at its port of the bridge, from it where its packets wait."""
    enter = ("nsenter", f"--net=/proc/{engine.inspect(box)['State']['Pid']}/ns/net")
    inside = engine.in_network(*enter, "ip", "-o", "link", "show", "eth0").out
    index = inside.partition("@if")[2].partition(":")[0]
    lines = [line.split(": ") for line in engine.in_network("ip", "-o", "link").out.splitlines()]
    links = {line[0]: line[1].partition("@")[0] for line in lines}
    waiting = f"vr{links[index][2:]}"
    command = ("tc", "qdisc", "show", "dev")
    if waiting in links.values():
        out = engine.in_network(*command, waiting).out
    else:  # this kernel can't hold it on the host
        out = engine.in_network(*enter, *command, "eth0").out
    return [engine.in_network(*command, links[index]).out, out]


def test_rate_of_a_container(daemon: Tared) -> None:
    """It is shown, holds inside, changes live by update, outlives a restart, and goes by being set to nothing."""
    engine = daemon.start().engine
    engine.prepare()
    try:
        engine.docker("network", "create", "one")
        flags = ["--network", "name=one,rate=10mbit,burst=64k"]
        box = engine.tare_cli("run", "-d", *flags, engine.image, "sleep", "1000").out.strip()
        assert option(engine, box) == {"tare.network.rate": "10mbit", "tare.network.burst": "64k"}
        refused = engine.tare_cli("update", "--network-set", "one,rate=fast", box, check=False)
        assert "invalid rate" in refused.err
        engine.tare_cli("update", "--network-set", "one,rate=5mbit", box)
        assert option(engine, box) == {"tare.network.rate": "5mbit"}
        assert all("tbf" in line and "rate 5Mbit" in line for line in buckets(engine, box))
        engine.docker("restart", "-t", "0", box)
        assert all("rate 5Mbit" in line for line in buckets(engine, box))
        engine.tare_cli("update", "--network-set", "one", box)
        assert not option(engine, box)
        network = "name=one,delay=10ms,jitter=2ms,loss=1%"
        delayed = engine.tare_cli("create", "--network", network, engine.image, "true", check=False)
        set_late = engine.tare_cli("update", "--network-set", "one,delay=10ms", box, check=False)
        if has_netem():
            expected = {"tare.network.delay": "10ms", "tare.network.jitter": "2ms", "tare.network.loss": "1%"}
            assert option(engine, delayed.out.strip()) == expected
            assert all("delay 10ms" in line for line in buckets(engine, box))
            return
        for refused in (delayed, set_late):
            assert "sch_netem" in refused.err
        assert not option(engine, box) and engine.docker("ps", "-aq", "--no-trunc").out.split() == [box]
    finally:
        engine.clean()
        engine.docker("network", "rm", "one", check=False)
