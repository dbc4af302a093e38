"""Boot order (`--depends-on`) and `--health-on-failure`: what Docker's engine doesn't have."""

from __future__ import annotations

import json

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

QUICK = ("--health-interval", "100ms", "--health-timeout", "2s", "--health-retries", "1")


def create(engine: Engine, name: str, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
    """A container of our own client's making; returns its name."""
    engine.tare_cli("create", "--name", name, *flags, engine.image, *command)
    return name


def state(engine: Engine, name: str) -> dict[str, object]:
    """A container's State."""
    found = engine.inspect(name)["State"]
    assert isinstance(found, dict)
    return found


def test_dependencies_start_first(tare: Engine) -> None:
    """Starting a container starts what it depends on, however deep, and before it."""
    low, middle, top = (tare.unique(stem) for stem in ("low", "middle", "top"))
    create(tare, low)
    create(tare, middle, "--depends-on", low)
    create(tare, top, "--depends-on", f"{middle}:started", "--depends-on", low)
    assert tare.inspect(top)["HostConfig"]["DependsOn"] == [f"{middle}:started", low]
    tare.tare_cli("start", top, low)
    assert [state(tare, name)["Status"] for name in (low, middle, top)] == ["running"] * 3
    started = [str(state(tare, name)["StartedAt"]) for name in (low, middle, top)]
    assert started == sorted(started)


def test_restart_starts_dependencies_too(tare: Engine) -> None:
    """A restart brings up what the container depends on first; if that can't be, what runs runs on."""
    low, top = tare.unique("low"), tare.unique("top")
    create(tare, low)
    create(tare, top, "--depends-on", low)
    tare.tare_cli("start", top)
    tare.docker("stop", "-t", "0", low)
    tare.docker("restart", "-t", "0", top)
    assert state(tare, low)["Running"] and str(state(tare, low)["StartedAt"]) < str(state(tare, top)["StartedAt"])
    pid = state(tare, top)["Pid"]
    tare.docker("rm", "-f", low)
    refused = tare.docker("restart", "-t", "0", top, check=False)
    assert refused.code == 1 and f"No such container: {low}" in refused.err
    assert state(tare, top)["Pid"] == pid


def test_healthy_is_waited_for(tare: Engine) -> None:
    """With :healthy a container starts only once the other's health check has passed."""
    low, top = tare.unique("low"), tare.unique("top")
    create(
        tare, low, "--health-cmd", "test -e /ready", "--health-start-period", "1m", "--health-start-interval", "50ms"
    )
    create(tare, top, "--depends-on", f"{low}:healthy")
    starting = tare.popen("start", top)
    try:
        wait_until(lambda: state(tare, low)["Running"], "the dependency runs")
        wait_until(lambda: state(tare, low)["Health"]["Log"], "a failed probe")  # type: ignore[index]
        assert state(tare, top)["Status"] == "created"
        tare.docker("exec", low, "touch", "/ready")
        assert starting.wait(60) == 0
    finally:
        starting.kill()
        starting.communicate()
    assert state(tare, top)["Running"] and state(tare, low)["Health"]["Status"] == "healthy"  # type: ignore[index]


def test_unhealthy_refuses(tare: Engine) -> None:
    """If the other turns unhealthy, the start fails and says so, and the waiting container is as it was."""
    low, top = tare.unique("low"), tare.unique("top")
    create(tare, low, "--health-cmd", "false", *QUICK)
    create(tare, top, "--depends-on", f"{low}:healthy")
    refused = tare.tare_cli("start", top, check=False)
    assert refused.code == 1 and f"dependency {low} is unhealthy" in refused.err
    assert state(tare, top)["Status"] == "created" and "unhealthy" in str(state(tare, top)["Error"])


def test_completed(tare: Engine) -> None:
    """With :completed the other must have ended with 0; what has is not run again, what failed is."""
    work, top = tare.unique("work"), tare.unique("top")
    create(tare, work, command=("sh", "-c", "echo ran; test -e /ok"))
    create(tare, top, "--depends-on", f"{work}:completed")
    refused = tare.tare_cli("start", top, check=False)
    assert refused.code == 1 and f"dependency {work} did not complete: it ended with exit code 1" in refused.err
    tare.docker("cp", "/dev/null", f"{work}:/ok")
    tare.tare_cli("start", top)
    assert state(tare, top)["Running"]
    wait_until(lambda: tare.logs(work) == "ran\nran\n", "two runs")
    tare.docker("kill", top)
    tare.tare_cli("start", top)
    assert tare.logs(work) == "ran\nran\n"


def test_what_can_never_be_is_refused(tare: Engine) -> None:
    """Circles, containers that aren't there, conditions that aren't, and health that nothing checks: at create."""
    one, two = tare.unique("one"), tare.unique("two")
    create(tare, one)
    create(tare, two, "--depends-on", one)
    tare.docker("rm", one)
    for flags, words in (
        ((two,), f"dependency circle: {one} → {two} → {one}"),
        ((one,), f"dependency circle: {one} → {one}"),
        (("nobody-here",), "No such container: nobody-here"),
        ((f"{two}:happy",), "the condition is one of started, healthy, completed"),
        ((f"{two}:healthy",), "has no health check"),
        ((":healthy",), "no container's name"),
    ):
        options = [part for ref in flags for part in ("--depends-on", ref)]
        refused = tare.tare_cli("create", "--name", one, *options, tare.image, check=False)
        assert refused.code == 1 and words in refused.err, (flags, refused)
    assert one not in tare.docker("ps", "-a", "--format", "{{.Names}}").out


def test_a_circle_by_renaming_is_seen_at_start(tare: Engine) -> None:
    """Names are looked up at each start, so that a circle that came about later is refused there."""
    one, two = tare.unique("one"), tare.unique("two")
    create(tare, one)
    create(tare, two, "--depends-on", one)
    tare.docker("rename", one, f"{one}-old")
    create(tare, f"{one}-new", "--depends-on", two)
    tare.docker("rename", f"{one}-new", one)
    refused = tare.tare_cli("start", two, check=False)
    assert refused.code == 1 and "dependency circle" in refused.err


def test_removal_ends_the_waiting(tare: Engine) -> None:
    """A container that is removed while it waits doesn't start, and its client isn't left hanging."""
    low, top = tare.unique("low"), tare.unique("top")
    create(tare, low, "--health-cmd", "false", "--health-start-period", "1m")
    create(tare, top, "--depends-on", f"{low}:healthy")
    starting = tare.popen("start", top)
    try:
        wait_until(lambda: state(tare, low)["Running"], "the dependency runs")
        tare.docker("rm", "-f", top)
        assert starting.wait(40) == 1
    finally:
        starting.kill()
        starting.communicate()


def test_order_at_boot_and_at_the_end(daemon: Tared) -> None:
    """Restart policies follow the order when the engine starts; without live restore it stops the other way round."""
    daemon.args += ["--live-restore=false"]
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    script = "trap 'echo bye > /out/$NAME; date +%s.%N > /out/$NAME; exit 0' TERM; sleep 1000 & wait"
    shared = daemon.home / "out"
    shared.mkdir()
    always = ("--restart", "always", "-v", f"{shared}:/out")
    # made first, so that any order by age would start it last and stop it first
    create(engine, "low", *always, "-e", "NAME=low", command=("sh", "-c", script))
    create(engine, "top", *always, "-e", "NAME=top", "--depends-on", "low", command=("sh", "-c", script))
    engine.tare_cli("start", "top")
    daemon.restart()
    assert (shared / "top").stat().st_mtime_ns <= (shared / "low").stat().st_mtime_ns
    wait_until(lambda: state(engine, "top")["Running"], "the dependent runs again")
    assert str(state(engine, "low")["StartedAt"]) < str(state(engine, "top")["StartedAt"])


@pytest.mark.parametrize("action", ["restart", "stop", "kill", "none"])
def test_health_on_failure(tare: Engine, action: str) -> None:
    """--health-on-failure does what it says when a container turns unhealthy."""
    name = tare.unique("sick")
    flags = ("--health-cmd", "false", *QUICK, "--health-on-failure", action, "--stop-timeout", "0")
    create(tare, name, *flags)
    assert tare.inspect(name)["HostConfig"]["HealthOnFailure"] == action
    tare.tare_cli("start", name)
    first = state(tare, name)["StartedAt"]
    if action == "none":
        wait_until(lambda: state(tare, name)["Health"]["Status"] == "unhealthy", "unhealthy")  # type: ignore[index]
        assert state(tare, name)["Running"]
    elif action == "restart":
        wait_until(lambda: state(tare, name)["StartedAt"] != first, "a second start")
    else:
        wait_until(lambda: state(tare, name)["Status"] == "exited", "the end")


def test_health_on_failure_knows_its_words(tare: Engine) -> None:
    """Another action is refused at create."""
    refused = tare.tare_cli("create", "--health-on-failure", "pray", tare.image, check=False)
    assert refused.code == 1 and "invalid health-on-failure action: pray" in refused.err
    assert json.loads(tare.api.request("GET", "/containers/json?all=1").body) == []
