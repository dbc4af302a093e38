"""Dying or failing at every step that changes the world: the next daemon agrees with the kernel, nothing leaks.

The steps are found in the source (tare.faults). For each one a daemon is started with TARE_FAULT set, which makes the
process that comes there (daemon, launcher, monitor or init) be killed or fail; then a daemon without it must put
things right, every verb must work, and after removing all containers nothing may be left of any.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import leftovers
from support.deadline import wait_until
from support.processes import is_alive
from support.tared import Tared, is_runnable, marks_of

SOURCE = Path(__file__).parents[2] / "src" / "tare"
POINT = re.compile(r"faults?\.point\(\s*f?\"([a-z0-9_.-]+)\"")
POINTS = sorted({name for path in SOURCE.rglob("*.py") for name in POINT.findall(path.read_text())})
# The log's own steps have a sweep of their own, in tests/logdrivers.
POINTS = [name for name in POINTS if not name.startswith(("monitor.log.", "engine.logs."))]
# Every transaction of the whole sequence is a step of its own.
COMMIT = "storage.database.commit"
SPECS = [f"{name}:kill" for name in POINTS] + [f"{COMMIT}@{n}:kill" for n in range(2, 10)]
SPECS += [name for name in POINTS if name.startswith("engine.")]  # a failure that is no death


class Stage:
    """The roots that the sweep goes on with, until a failure spoils them."""

    def __init__(self) -> None:
        self.before = leftovers.snapshot()
        self.daemon: Tared | None = None

    def current(self) -> Tared:
        """Roots with an image in them; the daemon is stopped."""
        if self.daemon is None:
            self.daemon = Tared()
            self.daemon.start()
            self.daemon.engine.prepare()
            self.daemon.terminate()
        return self.daemon

    def drop(self, *, check: bool) -> None:
        """Ends the daemon; nothing of it may be left."""
        daemon, self.daemon = self.daemon, None
        if daemon is None:
            return
        try:
            if check:
                daemon.start()
            daemon.stop()
            if check:
                leftovers.assert_none(self.before, marks_of([daemon]), everything=False)
        finally:
            daemon.scrub()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Shared by the sweep, since a new image for each step would take longer than the step."""
    if not is_runnable():
        pytest.skip("this tree has no daemon yet")
    made = Stage()
    yield made
    made.drop(check=True)


def small_tar() -> bytes:
    """A layer with one file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    return data.getvalue()


def steps(daemon: Tared) -> list[Callable[[], Any]]:
    """The verbs, one after the other."""
    request, image = daemon.engine.api.request, daemon.engine.image

    def ask(method: str, path: str, body: Any = None, **query: Any) -> Any:
        return request(method, path, body, query=query, check=False, timeout=6)

    ports = {"PortBindings": {"80/tcp": [{"HostPort": "0"}]}, "Memory": 64 << 20}
    run = {"Image": image, "Cmd": ["sleep", "1000"], "HostConfig": ports}
    brief = {"Image": image, "Cmd": ["true"], "HostConfig": {"AutoRemove": True}}
    command = {"Cmd": ["true"], "AttachStdout": True}

    def exec_once() -> Any:
        made = ask("POST", "/containers/first/exec", command)
        return ask("POST", f"/exec/{made.json['Id']}/start", {"Detach": True})

    return [
        lambda: ask("POST", "/containers/create", run, name="first"),
        lambda: ask("POST", "/containers/first/start"),
        exec_once,
        lambda: ask("POST", "/commit", {}, container="first", repo="committed"),
        lambda: ask("POST", "/containers/first/stop", t=0),
        lambda: ask("POST", "/containers/first/start"),
        lambda: ask("POST", "/containers/first/kill"),
        lambda: ask("POST", "/containers/first/wait"),
        lambda: ask("DELETE", "/containers/first", force=1),
        lambda: ask("POST", "/containers/create", brief, name="second"),
        lambda: ask("POST", "/containers/second/start"),
        lambda: ask("POST", "/images/create", small_tar(), fromSrc="-", repo="imported"),
        lambda: ask("POST", "/images/imported/tag", repo="again"),
        lambda: ask("DELETE", "/images/imported"),
        lambda: ask("DELETE", "/images/again"),
        lambda: ask("DELETE", "/images/committed"),
    ]


def drive(daemon: Tared) -> bool:
    """Goes through the verbs until the daemon dies; whether anything went wrong."""
    wrong = False
    for step in steps(daemon):
        try:
            answer = step()
            wrong = wrong or answer.status >= 400
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            wrong = True
        assert daemon.process is not None
        if daemon.process.poll() is not None:
            return True
    return wrong


def cgroups_of(daemon: Tared) -> set[str]:
    """Names of the containers' cgroups in any hierarchy."""
    found = set()
    for pattern in (f"*/{daemon.mark}/*", f"{daemon.mark}/*"):
        found |= {path.name for path in Path("/sys/fs/cgroup").glob(pattern) if path.is_dir()}
    return found


def names(path: Path) -> set[str]:
    """Entries of a folder that may be absent, but for the one in which what was removed is being deleted."""
    return set(os.listdir(path)) - {".trash"} if path.is_dir() else set()


def disagreement(daemon: Tared) -> list[str]:
    """Where the daemon's word and the kernel's differ."""
    found = []
    listed = daemon.engine.api.request("GET", "/containers/json", query={"all": 1}).json
    known = {entry["Id"] for entry in listed}
    running = set()
    for container in known:
        state = daemon.engine.inspect(container)["State"]
        if state["Running"]:
            running.add(container)
            if not is_alive(state["Pid"]):
                found.append(f"{container[:12]} is said to run, but its process is gone")
    found += [f"cgroup of {name[:12]}" for name in cgroups_of(daemon) - running]
    found += [f"run folder of {name[:12]}" for name in names(daemon.exec_root / "containers") - known]
    waiting = {entry["Id"] for entry in daemon.engine.api.request("GET", "/tare/trash", check=False).json}
    found += [f"data folder of {name[:12]}" for name in names(daemon.data_root / "containers") - known - waiting]
    ports = len(names(Path(f"/sys/class/net/{daemon.mark}/brif")))
    if ports != len(running):
        found.append(f"{ports} ports on the bridge for {len(running)} running containers")
    titles = [title.strip()[:60] for title in daemon.processes().values()]
    monitors = [title for title in titles if title.startswith(("tare: monitor of", "tare: exec"))]
    if len(monitors) != len(running):
        found.append(f"{len(monitors)} monitors for {len(running)} running containers: {titles}")
    return found


def wait_agreement(daemon: Tared) -> None:
    """Waits until the daemon's word and the kernel's agree."""
    last: list[str] = []

    def agrees() -> bool:
        last[:] = disagreement(daemon)
        return not last

    try:
        wait_until(agrees, "daemon and kernel agree", 10)
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(last) + "\n" + daemon.log_tail(20)) from None


def snapshots_of(daemon: Tared) -> set[str]:
    """Snapshot folders that belong to containers."""
    return {name for name in names(daemon.data_root / "snapshots") if not name.startswith(".")}


@pytest.mark.parametrize("spec", SPECS)
def test_every_step(stage: Stage, spec: str) -> None:
    """After the death or failure at this step and a restart all is right, all verbs work, and nothing is left."""
    try:
        check_step(stage.current(), spec)
    except BaseException:
        stage.drop(check=False)
        raise


def check_step(daemon: Tared, spec: str) -> None:
    """One step of the sweep."""
    daemon.start(env={"TARE_FAULT": spec}, wait=False)
    try:
        daemon.wait_ready()
        drive(daemon)
    except AssertionError as error:
        assert "exited" in str(error), error  # it died or failed on the way up, as it was told to
    assert daemon.process is not None
    if daemon.process.poll() is None:
        daemon.kill9()
    daemon.start()
    wait_agreement(daemon)
    daemon.engine.clean()
    for name in ("imported", "again", "committed"):
        daemon.engine.api.request("DELETE", f"/images/{name}", query={"force": 1})
    assert not drive(daemon), f"a verb failed after the restart:\n{daemon.log_tail(20)}"
    daemon.engine.clean()
    wait_agreement(daemon)
    daemon.engine.api.request("DELETE", "/tare/trash", check=False)
    wait_until(lambda: not snapshots_of(daemon), "no snapshot is left")
    images = daemon.engine.api.request("GET", "/images/json").json
    assert [image["RepoTags"] for image in images] == [[f"{daemon.engine.image}:latest"]]
    daemon.terminate()
