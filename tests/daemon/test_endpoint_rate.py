"""tare run --network NAME,rate=…: real containers that are only so fast."""

from __future__ import annotations

from support.engine import Engine
from support.tared import Tared


def option(engine: Engine, box: str) -> object:
    return engine.inspect(box)["NetworkSettings"]["Networks"]["one"]["DriverOpts"]


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
        pid = engine.inspect(box)["State"]["Pid"]
        shown = engine.in_network("nsenter", f"--net=/proc/{pid}/ns/net", "tc", "qdisc", "show", "dev", "eth0").out
        assert "tbf" in shown and "rate 5Mbit" in shown
        engine.docker("restart", "-t", "0", box)
        pid = engine.inspect(box)["State"]["Pid"]
        shown = engine.in_network("nsenter", f"--net=/proc/{pid}/ns/net", "tc", "qdisc", "show", "dev", "eth0").out
        assert "rate 5Mbit" in shown
        engine.tare_cli("update", "--network-set", "one", box)
        assert not option(engine, box)
        delayed = engine.tare_cli("create", "--network", "name=one,delay=10ms", engine.image, "true", check=False)
        assert "doesn't delay packets" in delayed.err
    finally:
        engine.clean()
        engine.docker("network", "rm", "one", check=False)
