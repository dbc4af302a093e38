"""tare run --egress: real containers that may not send to everywhere, across restarts of everything."""

from __future__ import annotations

import json
import time

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared


def denied(engine: Engine, box: str) -> list[dict[str, str]]:
    """What was tried in vain, by the events."""
    now = f"{time.time() + 0.02:.9f}"
    only = ["--filter", "event=egress_denied", "--format", "{{json .}}"]
    out = engine.docker("events", "--since", "1h", "--until", now, *only).out
    events = [json.loads(line) for line in out.splitlines()]
    return [event["Actor"]["Attributes"] for event in events if event["Actor"]["ID"] == box]


def test_sandbox_has_no_way_out(daemon: Tared) -> None:
    """none: nothing outside is reached, the try is an event with its destination; update opens and shuts the way of the
    running container; inspect shows the policy; restarts of container and daemon keep it."""
    engine = daemon.start().engine
    engine.prepare()
    try:
        engine.docker("network", "create", "one")
        target = engine.start("--network", "one")
        box = engine.tare_cli("run", "-d", "--egress", "none", "--network", "one", engine.image, "sleep", "1000")
        box = box.out.strip()
        assert engine.inspect(box)["HostConfig"]["Egress"] == "none"
        assert "Egress" not in engine.inspect(target)["HostConfig"]
        engine.docker("exec", box, "nc", "-w", "2", "203.0.113.7", "443", check=False)
        wait_until(lambda: bool(denied(engine, box)), "the try is told", 5)
        (event,) = [found for found in denied(engine, box) if found["destination"] == "203.0.113.7"][:1]
        assert (event["protocol"], event["port"]) == ("tcp", "443")
        refused = engine.tare_cli("update", "--egress", "sometimes", box, check=False)
        assert "invalid egress policy" in refused.err
        engine.tare_cli("update", "--egress", "allow=203.0.113.0/24", box)
        before = len(denied(engine, box))
        engine.docker("exec", box, "nc", "-w", "1", "203.0.113.7", "443", check=False)
        assert len(denied(engine, box)) == before
        daemon.kill9(launcher=True)
        daemon.start()
        assert engine.inspect(box)["HostConfig"]["Egress"] == "allow=203.0.113.0/24"
        engine.docker("exec", box, "nc", "-w", "2", "192.0.2.7", "443", check=False)
        wait_until(lambda: any(e["destination"] == "192.0.2.7" for e in denied(engine, box)), "it is still bound", 5)
        engine.tare_cli("update", "--egress", "all", box)
        before = len(denied(engine, box))
        engine.docker("exec", box, "nc", "-w", "1", "192.0.2.7", "443", check=False)
        assert len(denied(engine, box)) == before
    finally:
        engine.clean()
        engine.docker("network", "rm", "one", check=False)


@pytest.mark.parametrize("flags", [["--network", "host", "--egress", "none"], ["--egress", "allow=x y"]])
def test_policies_that_cannot_hold_are_refused(daemon: Tared, flags: list[str]) -> None:
    """A container on the host's network, or a policy that isn't understood: create says so."""
    engine = daemon.start().engine
    engine.prepare()
    refused = engine.tare_cli("create", *flags, engine.image, "true", check=False)
    assert refused.code == 1 and "egress" in refused.err


def test_policies_that_a_network_can_not_hold_are_refused_at_create(daemon: Tared) -> None:
    """Names on the default network, any policy on a network without the guard: create says so, before a start would.
    `tared --network-guard=false` makes the default network such a one."""
    daemon.args = ["--network-guard=false"]
    engine = daemon.start().engine
    engine.prepare()
    engine.docker("network", "create", "-o", "tare.network.guard=false", "free")
    try:
        for network, policy in (("free", "none"), ("bridge", "none")):
            flags = ["--network", network, "--egress", policy]
            refused = engine.tare_cli("create", *flags, engine.image, "true", check=False)
            assert refused.code == 1 and f"needs the guard, which network {network} goes without" in refused.err
        daemon.terminate()
        daemon.args = []
        daemon.start()
        refused = engine.tare_cli("create", "--egress", "allow=shop.example:80", engine.image, "true", check=False)
        assert refused.code == 1 and "names needs a network of the user's own" in refused.err
        engine.tare_cli("create", "--egress", "none", engine.image, "true")
    finally:
        engine.clean()
        engine.docker("network", "rm", "free", check=False)


def test_a_networks_policy_changes_while_it_is_in_use(daemon: Tared) -> None:
    """tare network update --egress binds the containers that run, and those to come; also on the default network; all
    lifts it, inspect shows it, a restart keeps it; what can't be held is refused, and nothing has changed."""
    engine = daemon.start().engine
    engine.prepare()
    engine.docker("network", "create", "one")
    try:
        for network in ("one", "bridge"):
            box = engine.start("--network", network)
            gateway = engine.inspect(box)["NetworkSettings"]["Networks"][network]["Gateway"]
            ping = ["exec", box, "ping", "-c1", "-W1", gateway]
            assert engine.docker(*ping, check=False).code == 0
            engine.tare_cli("network", "update", "--egress", "none", network)
            assert engine.docker(*ping, check=False).code != 0
            shown = engine.api.request("GET", f"/networks/{network}").json["Options"]
            assert shown["tare.network.egress"] == "none"
            daemon.kill9(launcher=True)
            daemon.start()
            assert engine.docker(*ping, check=False).code != 0
            refused = engine.tare_cli("network", "update", "--egress", "sometimes", network, check=False)
            assert refused.code == 1 and "invalid egress policy" in refused.err
            engine.tare_cli("network", "update", "--egress", "all", network)
            assert engine.docker(*ping, check=False).code == 0
        refused = engine.tare_cli("network", "update", "--egress", "allow=a.example:80", "bridge", check=False)
        assert "names needs a network of the user's own" in refused.err
        refused = engine.tare_cli("network", "update", "--egress", "none", "host", check=False)
        assert refused.code == 1 and "can't have an egress policy" in refused.err
    finally:
        engine.clean()
        engine.docker("network", "rm", "one", check=False)
