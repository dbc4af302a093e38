"""Health checks, on both engines."""

from __future__ import annotations

import json

import pytest

from support.deadline import wait_until
from support.engine import Engine

QUICK = ("--health-interval", "100ms", "--health-timeout", "2s", "--health-retries", "2")


def health(engine: Engine, container: str) -> dict[str, object]:
    """State.Health of a container."""
    found = json.loads(engine.docker("inspect", "-f", "{{json .State.Health}}", container).out)
    assert isinstance(found, dict)
    return found


def start(engine: Engine, command: str, *flags: str) -> str:
    """A container with a health check."""
    return engine.docker("run", "-d", "--health-cmd", command, *flags, engine.image, "sleep", "1000").out.strip()


def test_healthy_and_unhealthy(engine: Engine) -> None:
    """A probe that passes makes healthy; one that fails often enough makes unhealthy; the log tells why."""
    container = start(engine, "echo looked; test ! -e /sick", *QUICK)
    wait_until(lambda: health(engine, container)["Status"] == "healthy", "healthy")
    assert "(healthy)" in engine.docker("ps", "--filter", f"id={container}", "--format", "{{.Status}}").out
    assert engine.docker("ps", "-q", "--filter", "health=healthy", "--no-trunc").out.split().count(container) == 1
    engine.docker("exec", container, "touch", "/sick")
    wait_until(lambda: health(engine, container)["Status"] == "unhealthy", "unhealthy")
    state = health(engine, container)
    assert isinstance(state["FailingStreak"], int) and state["FailingStreak"] >= 2
    log = state["Log"]
    assert isinstance(log, list) and 0 < len(log) <= 5
    assert log[-1]["ExitCode"] == 1 and log[-1]["Output"] == "looked\n"
    engine.docker("rm", "-f", container)


def test_nobody_looks_after_the_end(engine: Engine) -> None:
    """A container that has ended is no longer healthy; one that starts again begins anew."""
    container = start(engine, "true", *QUICK)
    wait_until(lambda: health(engine, container)["Status"] == "healthy", "healthy")
    engine.docker("kill", container)
    engine.exit_code(container)
    assert health(engine, container)["Status"] == "unhealthy" and health(engine, container)["Log"]
    engine.docker("start", container)
    wait_until(lambda: health(engine, container)["Status"] == "healthy", "healthy again")
    engine.docker("rm", "-f", container)


def test_probe_that_hangs(engine: Engine) -> None:
    """A probe that doesn't end in time counts as failed, and is killed."""
    flags = ("--health-interval", "100ms", "--health-timeout", "200ms", "--health-retries", "1")
    container = start(engine, "sleep 1234", *flags)
    wait_until(lambda: health(engine, container)["Status"] == "unhealthy", "unhealthy")
    log = health(engine, container)["Log"]
    assert isinstance(log, list)
    assert log[-1]["ExitCode"] == -1 and "Health check exceeded timeout" in log[-1]["Output"]
    engine.docker("rm", "-f", container)


def test_start_period_forgives(engine: Engine) -> None:
    """Failures while the container starts don't count."""
    container = start(engine, "false", *QUICK, "--health-start-period", "1h")
    wait_until(lambda: len(health(engine, container)["Log"]) >= 1, "a probe")  # type: ignore[arg-type]
    state = health(engine, container)
    assert state["Status"] == "starting" and state["FailingStreak"] == 0
    engine.docker("rm", "-f", container)


def test_image_check_and_no_healthcheck(engine: Engine) -> None:
    """An image's health check is the container's, unless --no-healthcheck."""
    made = engine.docker("create", engine.image).out.strip()
    tag = engine.unique("health")
    engine.docker("commit", "-c", "HEALTHCHECK --interval=200ms CMD true", made, tag)
    with_check = engine.docker("run", "-d", tag, "sleep", "1000").out.strip()
    wait_until(lambda: health(engine, with_check)["Status"] == "healthy", "healthy")
    without = engine.docker("run", "-d", "--no-healthcheck", tag, "sleep", "1000").out.strip()
    assert engine.docker("inspect", "-f", "{{json .State.Health}}", without).out.strip() == "null"
    engine.docker("rm", "-f", with_check, without, made)
    engine.docker("rmi", tag)


@pytest.mark.parametrize("flags", [("--health-interval", "1us"), ("--health-retries", "-1")])
def test_wrong_health_options(engine: Engine, flags: tuple[str, ...]) -> None:
    """What makes no sense is refused."""
    refused = engine.docker("create", "--health-cmd", "true", *flags, engine.image, check=False)
    assert refused.code != 0
