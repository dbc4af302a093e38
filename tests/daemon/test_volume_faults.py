"""Dying or failing at every step of a volume's life: the next daemon has whole volumes, none too many, none mounted."""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import leftovers
from support.deadline import wait_until
from support.tared import Tared, is_runnable, marks_of

# What the room alone can show (tests/volumes) isn't repeated here.
KILLED = (
    "volumes.create.directory", "volumes.fill.complete", "volumes.shared.mounted", "volumes.shared.unmounted",
    "volumes.remove.row@2", "engine.create.volumes", "engine.create.filled", "engine.start.volumes",
    "engine.start.running", "engine.exit.stored", "engine.remove.marked", "engine.remove.forgotten",
)  # fmt: skip
FAILING = ("volumes.fill.copied", "engine.create.filled", "engine.start.volumes", "engine.start.running")
SPECS = [*(f"{point}:kill" for point in KILLED), *FAILING]
OPTIONS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


class Stage:
    """The roots that the sweep goes on with, until a failure spoils them."""

    def __init__(self) -> None:
        self.before = leftovers.snapshot()
        self.daemon: Tared | None = None

    def current(self) -> Tared:
        """Roots with the image in them; the daemon is stopped."""
        if self.daemon is None:
            self.daemon = Tared(bridge=False)
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
    """One for the sweep, since a new image for each step would take longer than the step."""
    if not is_runnable():
        pytest.skip("this tree has no daemon yet")
    made = Stage()
    yield made
    made.drop(check=True)


def steps(daemon: Tared) -> list[Callable[[], Any]]:
    """A volume's life: made, filled, mounted, and removed with and without its container."""
    request, image = daemon.engine.api.request, daemon.engine.image

    def ask(method: str, path: str, body: Any = None, **query: Any) -> Any:
        return request(method, path, body, query=query, check=False, timeout=15)

    host = {"NetworkMode": "none", "Binds": ["auto:/etc", "memory:/memory", "named:/named"]}
    run = {"Image": image, "Cmd": ["sleep", "1000"], "Volumes": {"/bin": {}}, "HostConfig": host}
    return [
        lambda: ask("POST", "/volumes/create", {"Name": "named"}),
        lambda: ask("POST", "/volumes/create", {"Name": "memory", "DriverOpts": OPTIONS}),
        lambda: ask("POST", "/containers/create", run, name="first"),
        lambda: ask("POST", "/containers/first/start"),
        lambda: ask("POST", "/containers/first/stop", t=0),
        lambda: ask("DELETE", "/containers/first", v=1),
        *(lambda name=name: ask("DELETE", f"/volumes/{name}") for name in ("auto", "memory", "named")),
    ]


def drive(daemon: Tared) -> bool:
    """Goes through the verbs until the daemon dies; whether anything went wrong."""
    wrong = False
    for step in steps(daemon):
        try:
            wrong = step().status >= 400 or wrong
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            wrong = True
        assert daemon.process is not None
        if daemon.process.poll() is not None:
            return True
    return wrong


def disagreement(daemon: Tared) -> list[str]:
    """Where volumes, directories, mounts and containers don't agree."""
    found = []
    request = daemon.engine.api.request
    volumes = {volume["Name"]: volume for volume in request("GET", "/volumes").json["Volumes"]}
    containers = request("GET", "/containers/json", query={"all": 1}).json
    used = {mount["Name"] for container in containers for mount in container["Mounts"]}
    root = daemon.data_root / "volumes"
    entries = {name for name in os.listdir(root) if name[0] != "."}
    if entries != set(volumes):
        found.append(f"directories {entries}, volumes {set(volumes)}")
    found += [f"half volume {name}" for name in entries if os.listdir(root / name) != ["_data"]]
    found += [f"volume {name[:12]} of no container" for name in volumes if len(name) == 64 and name not in used]
    if used - set(volumes):
        found.append(f"containers have {used - set(volumes)}, which aren't there")
    runs = any(container["State"] == "running" for container in containers)
    mounted = str(root) in Path("/proc/self/mounts").read_text()
    if mounted != runs:
        found.append(f"mounted: {mounted}, but running: {runs}")
    filled = set(os.listdir(root / "auto" / "_data")) if "auto" in entries else set()
    if filled and not {"passwd", "group"} <= filled:
        found.append(f"half filled: {filled}")
    return found


def agree(daemon: Tared) -> None:
    """Waits until all agrees (an ended container's removal goes on beside)."""
    last: list[str] = []

    def agrees() -> bool:
        last[:] = disagreement(daemon)
        return not last

    try:
        wait_until(agrees, "volumes agree", 10)
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(last) + "\n" + daemon.log_tail(20)) from None


@pytest.mark.parametrize("spec", SPECS)
def test_volumes_after_a_crash(stage: Stage, spec: str) -> None:
    """After the death or failure at this step and a restart, volumes are whole, and the same verbs succeed."""
    try:
        check_step(stage.current(), spec)
    except BaseException:
        stage.drop(check=False)
        raise


def check_step(daemon: Tared, spec: str) -> None:
    """One step of the sweep."""
    daemon.start(env={"TARE_FAULT": spec})
    assert drive(daemon), "the step is never passed"
    assert daemon.process is not None
    if daemon.process.poll() is None:
        if not spec.endswith(":kill"):
            agree(daemon)
        daemon.kill9()
    daemon.start()
    agree(daemon)
    daemon.engine.clean()
    for name in ("auto", "memory", "named"):
        daemon.engine.api.request("DELETE", f"/volumes/{name}", query={"force": 1})
    assert not drive(daemon), f"a verb failed after the restart:\n{daemon.log_tail(20)}"
    agree(daemon)
    assert daemon.engine.api.request("GET", "/volumes").json["Volumes"] == []
    wait_until(lambda: set(os.listdir(daemon.data_root / "volumes")) == {".removed", ".trash"}, "no directory is left")
    wait_until(lambda: os.listdir(daemon.data_root / "volumes" / ".trash") == [], "the trash is empty")
    daemon.terminate()


def test_running_containers_keep_their_volumes(daemon: Tared) -> None:
    """kill -9 of the daemon: mounts and content stay, the next daemon knows who uses what, and cleans up at the end."""
    daemon.start()
    daemon.engine.prepare()
    engine = daemon.engine
    engine.api.request("POST", "/volumes/create", {"Name": "memory", "DriverOpts": OPTIONS})
    container = engine.start("--net", "none", "-v", "memory:/m", "-v", "disk:/d", "-v", "/anon")
    engine.docker("exec", container, "sh", "-c", "echo here > /m/f; echo here > /d/f")
    daemon.kill9()
    daemon.start()
    assert engine.docker("exec", container, "cat", "/m/f", "/d/f").out == "here\nhere\n"
    other = engine.start("--net", "none", "--volumes-from", container)
    assert engine.docker("exec", other, "cat", "/m/f").out == "here\n"
    for name in ("memory", "disk"):
        assert engine.api.request("DELETE", f"/volumes/{name}", check=False).status == 409
    pid = engine.inspect(container)["State"]["Pid"]
    daemon.kill9()
    os.kill(pid, signal.SIGKILL)
    daemon.start()
    wait_until(lambda: not engine.inspect(container)["State"]["Running"], "its end is known")
    assert engine.docker("exec", other, "cat", "/m/f").out == "here\n"
    engine.docker("rm", "-f", "-v", other, container)
    assert str(daemon.data_root) not in Path("/proc/self/mounts").read_text()
    left = {volume["Name"] for volume in engine.api.request("GET", "/volumes").json["Volumes"]}
    assert left == {"memory", "disk"}
    assert engine.run("--net", "none", "-v", "disk:/d", "@", "cat", "/d/f").out == "here\n"
