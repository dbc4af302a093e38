"""Fixtures of all suites: the engines, clean-up between tests, leftovers at the end, skips that CI doesn't take."""

from __future__ import annotations

import compileall
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import dockerd as real_docker
from support import leftovers, skips
from support import tared as own
from support.engine import Engine

SOURCE = Path(__file__).parents[1] / "src"
_logs: list[own.Tared | real_docker.Dockerd] = []


def pytest_configure(config: pytest.Config) -> None:
    """Records what tests exercise if TARE_RECORD names a file for it."""
    if os.environ.get("TARE_RECORD"):
        from support import recording

        config.pluginmanager.register(recording)


def pytest_sessionstart() -> None:
    """Compiles the sources: the many processes that tests start leave no files, so each would do so anew."""
    compileall.compile_dir(SOURCE, quiet=2)


# What runs on the real dockerd, too, in every run. All the rest does so with TARE_PEER=all (`make compat`): that tells
# whether a test speaks of Docker's behaviour, which changes with the test, not with the engine.
PEER_FILES = frozenset(("test_smoke.py", "test_lifecycle.py", "test_streams.py", "test_runtime_under_dockerd.py"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves most tests of the real dockerd to `make compat`, unless they are asked for."""
    if os.environ.get("TARE_PEER") == "all" or config.option.keyword:
        return
    left = [item for item in items if _speaks_to_docker(item) and item.path.name not in PEER_FILES]
    config.hook.pytest_deselected(items=left)
    chosen = set(left)
    items[:] = [item for item in items if item not in chosen]


def _speaks_to_docker(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    return call is not None and "docker" in [value for value in call.params.values() if isinstance(value, str)]


@pytest.fixture(scope="session", autouse=True)
def nothing_left_at_the_end() -> Iterator[None]:
    """After the whole suite no mount, cgroup, link, rule, process or file of an engine is left."""
    before = leftovers.snapshot()
    yield
    marks = [daemon.mark for daemon in _logs if not getattr(daemon, "reused", "")]
    try:
        leftovers.assert_none(before, marks)
    finally:
        for daemon in _logs:
            if isinstance(daemon, own.Tared):
                daemon.scrub()


@pytest.fixture(scope="session")
def tared(nothing_left_at_the_end: None) -> Iterator[own.Tared]:
    """One daemon for the session with the busybox image in it. Tests that kill a daemon start their own."""
    if not own.is_runnable():
        pytest.skip("this tree has no daemon yet")
    daemon = own.Tared()
    _logs.append(daemon)
    try:
        daemon.start()
        daemon.engine.prepare()
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture(scope="session")
def dockerd(nothing_left_at_the_end: None) -> Iterator[real_docker.Dockerd]:
    """One real dockerd for the session, with the same image."""
    if not real_docker.is_available():
        pytest.skip("no dockerd is installed (Debian: docker.io)")
    daemon = real_docker.Dockerd()
    _logs.append(daemon)
    try:
        daemon.start()
        daemon.engine.prepare()
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture(scope="session", params=["tare", "docker"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    """Both engines, one after the other."""
    daemon: own.Tared | real_docker.Dockerd = request.getfixturevalue("tared" if request.param == "tare" else "dockerd")
    return daemon.engine


@pytest.fixture
def engine(any_engine: Engine) -> Iterator[Engine]:
    """Both engines; the test's containers are removed after it."""
    yield any_engine
    any_engine.clean()


@pytest.fixture
def tare(tared: own.Tared) -> Iterator[Engine]:
    """Only ours; the test's containers are removed after it."""
    yield tared.engine
    tared.engine.clean()


@pytest.fixture
def docker_engine(dockerd: real_docker.Dockerd) -> Iterator[Engine]:
    """Only the real one; the test's containers are removed after it."""
    yield dockerd.engine
    dockerd.engine.clean()


@pytest.fixture
def daemon() -> Iterator[own.Tared]:
    """A daemon of the test's own, not started yet; afterwards nothing of it may be left anywhere."""
    if not own.is_runnable():
        pytest.skip("this tree has no daemon yet")
    before = leftovers.snapshot()
    made = own.Tared()
    _logs.append(made)
    try:
        try:
            yield made
        finally:
            made.stop()
        leftovers.assert_none(before, own.marks_of([made]), everything=False)
    finally:
        made.scrub()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Shows the daemons' logs with a failure; turns a skip that isn't expected into a failure in CI."""
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not skips.is_allowed(reason):
            report.outcome = "failed"
            report.longrepr = f"unexpected skip in CI: {reason}"
    if report.failed:
        for daemon in _logs[-2:]:
            if daemon.log.exists():
                report.sections.append((f"log of {daemon.engine.name}", daemon.log_tail(25)))
