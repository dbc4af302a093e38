"""Networks without a bridge, and rates held on the host, outlive the daemon and leave nothing."""

from __future__ import annotations

import time

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

SERVE = "while :; do echo here | nc -l -p 80; done"


def asks(engine: Engine, box: str, name: str) -> str:
    return engine.docker("exec", box, "nc", "-w", "2", name, "80", check=False).out


def test_macvlan_and_rates_outlive_the_daemon(daemon: Tared) -> None:
    """kill -9: containers of a macvlan network find each other after the next start, start again with the address that
    they asked for, connect and disconnect; a rate is still there, and repair has nothing to do; no link stays."""
    engine = daemon.start().engine
    engine.prepare()
    engine.docker("network", "create", "-d", "macvlan", "--subnet", "10.239.4.0/24", "mac")
    box = engine.start("--network", "mac", "--name", "box", "--ip", "10.239.4.7", command=["sh", "-c", SERVE])
    friend = engine.start("--network", "mac")
    flags = ["-d", "--network", "name=bridge,rate=8mbit"]
    slow = engine.tare_cli("run", *flags, engine.image, "sleep", "1000").out.strip()
    assert asks(engine, friend, "box") == "here\n"
    daemon.kill9(launcher=True)
    daemon.start()
    wait_until(lambda: asks(engine, friend, "box") == "here\n", "names are served again", 5)
    assert engine.api.request("POST", "/tare/networks/repair", {}).json == {"Repaired": []}
    engine.docker("restart", "-t", "0", box)
    wait_until(lambda: asks(engine, friend, "box") == "here\n", "it is where it was", 5)
    engine.docker("network", "connect", "mac", slow)
    assert asks(engine, slow, "10.239.4.7") == "here\n"
    engine.docker("network", "disconnect", "mac", slow)
    assert asks(engine, slow, "10.239.4.7") == ""
    events = engine.docker(
        "events", "--since", "1h", "--until", f"{time.time() + 0.02:.9f}", "--filter", "type=network"
    ).out
    assert "network connect" in events and "type=macvlan" in events
    refused = engine.docker("network", "rm", "mac", check=False)
    assert "has active endpoints" in refused.err
    engine.clean()
    engine.docker("network", "rm", "mac")


def test_ports_that_nothing_leads_to_are_no_news(daemon: Tared) -> None:
    """-p in networks that lead to no port of the host publishes nothing, as with Docker; no restart warns of it."""
    engine = daemon.start().engine
    engine.prepare()
    engine.docker("network", "create", "-d", "macvlan", "--subnet", "10.239.4.0/24", "mac")
    engine.docker("network", "create", "--internal", "inside")
    boxes = [engine.start("--network", network, "-p", "80") for network in ("mac", "inside", "bridge")]
    published = [engine.inspect(box)["NetworkSettings"]["Ports"]["80/tcp"] for box in boxes]
    assert [bool(ports) for ports in published] == [False, False, True]
    daemon.kill9(launcher=True)
    daemon.start()
    assert [engine.inspect(box)["NetworkSettings"]["Ports"]["80/tcp"] for box in boxes] == published
    assert "WARNING" not in daemon.log.read_text()
    refused = engine.tare_cli("update", "--publish-add", "81:81", boxes[0], check=False)
    assert refused.code == 1 and "no network that leads to the host's ports" in refused.err
    engine.clean()
    engine.docker("network", "rm", "mac", "inside")


def test_the_host_is_found_over_ipv6_on_the_default_network(daemon: Tared) -> None:
    """tared --ipv6: host.docker.internal has the bridge's IPv6 address, too."""
    daemon.args = ["--ipv6", "--fixed-cidr-v6", "fd00:239::/64"]
    engine = daemon.start().engine
    engine.prepare()
    hosts = engine.docker("run", "--rm", engine.image, "cat", "/etc/hosts").out
    assert "fd00:239::1\thost.docker.internal host.tare.internal" in hosts.splitlines()
