"""Copies cut off at every step: nothing is left, and the same copy works when it is repeated."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest

from support.rawhttp import Answer
from support.tared import Tared

POINTS = (
    "engine.archive.opened",
    "engine.archive.unpacked",
    "storage.overwrite.entry",
    "storage.overwrite.entry@2",
    "storage.overwrite.replace",
)


def archive() -> bytes:
    """One directory in the place of a file, and two files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("etc/group", "new/one", "two"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"new\n"))
    return made.getvalue()


def put(daemon: Tared, container: str) -> Answer:
    return daemon.engine.api.request(
        "PUT", f"/containers/{container}/archive", archive(), query={"path": "/"}, check=False
    )


@pytest.fixture
def stopped(daemon: Tared) -> Iterator[str]:
    """A container that doesn't run, on a daemon of the test's own."""
    daemon.start()
    daemon.engine.prepare()
    yield daemon.engine.create({"Cmd": ["cat", "/etc/group", "/new/one", "/two"]}).json["Id"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_during_a_copy(daemon: Tared, stopped: str, point: str) -> None:
    """After kill -9 no mount stays, the container is as usable as before, and the copy can be repeated."""
    daemon.restart(env={"TARE_FAULT": f"{point}:kill"})
    with pytest.raises((OSError, EOFError)):
        put(daemon, stopped)
    daemon.wait_dead()
    daemon.start()
    assert put(daemon, stopped).status == 200
    daemon.engine.docker("start", stopped)
    assert daemon.engine.exit_code(stopped) == 0
    assert daemon.engine.logs(stopped) == "new\n" * 3


@pytest.mark.parametrize("point", [*POINTS, "runtime.view.step", "runtime.view.step@3", "runtime.view.step@3:kill"])
def test_failure_during_a_copy(daemon: Tared, stopped: str, point: str) -> None:
    """A failing step is an error of that request alone; the next start works."""
    daemon.restart(env={"TARE_FAULT": point})
    assert put(daemon, stopped).status == 500
    daemon.engine.docker("start", stopped)
    daemon.engine.exit_code(stopped)
    daemon.restart()
    assert put(daemon, stopped).status == 200
