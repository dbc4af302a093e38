"""What fails inside a living daemon is done when the verb is repeated, or in the background; the log tells of it."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support import agreement
from support.crashes import agree, names
from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

REMOVAL = [f"engine.remove.{step}" for step in ("marked", "snapshot", "directory")]
END = [f"engine.exit.{step}" for step in ("seen", "released", "stored")]
OPTIONS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


@contextmanager
def armable(*args: str) -> Iterator[Tared]:
    """A daemon whose fault points can be armed while it runs."""
    daemon = Tared(*args)
    daemon.make_armable()
    try:
        daemon.start()
        daemon.engine.prepare()
        yield daemon
    finally:
        daemon.stop()
        daemon.scrub()


@pytest.fixture(scope="module")
def shared() -> Iterator[Tared]:
    """One without a trash."""
    with armable("--trash-keep", "0") as daemon:
        yield daemon


@pytest.fixture
def engine(shared: Tared) -> Iterator[Engine]:
    """Its engine; afterwards nothing is left, without a restart."""
    shared.arm("")
    yield shared.engine
    shared.arm("")
    shared.engine.clean()
    agree(shared, agreement.nothing)


def status(engine: Engine, method: str, path: str, **query: object) -> int:
    """Of an answer."""
    return engine.api.request(method, path, query=query, check=False).status


@pytest.mark.parametrize("point", REMOVAL)
def test_a_removal_that_failed_succeeds_when_it_is_repeated(shared: Tared, engine: Engine, point: str) -> None:
    """At once, without "in progress", and takes all along that the first was to take."""
    container = engine.create({"Cmd": ["true"], "Volumes": {"/anonymous": {}}}).json["Id"]
    shared.arm(f"{point}")
    assert status(engine, "DELETE", f"/containers/{container}", v=1) == 500
    assert status(engine, "DELETE", f"/containers/{container}") == 204
    assert status(engine, "GET", f"/containers/{container}/json") == 404
    assert engine.api.request("GET", "/volumes").json["Volumes"] == []


@pytest.mark.parametrize("point", [*REMOVAL, "engine.remove.forgotten"])
def test_a_removal_that_failed_is_finished_in_the_background(shared: Tared, engine: Engine, point: str) -> None:
    """Its volumes go, who waits for it is woken, and the log tells; once the record is gone the answer is success."""
    container = engine.create({"Cmd": ["true"], "Volumes": {"/anonymous": {}}}).json["Id"]
    told = len(shared.log.read_text())
    shared.arm(point)
    answer = status(engine, "DELETE", f"/containers/{container}", v=1)
    assert answer == (204 if point == "engine.remove.forgotten" else 500)
    assert status(engine, "POST", f"/containers/{container}/wait", condition="removed") in (200, 404)
    wait_until(lambda: not engine.api.request("GET", "/volumes").json["Volumes"], "its volume is gone")
    wait_until(lambda: "done after all" in shared.log.read_text()[told:], "the log says that it was done")
    assert "failed; tried again in 0.5 s" in shared.log.read_text()[told:]


@pytest.mark.parametrize("point", END)
def test_an_end_that_failed_is_finished(shared: Tared, engine: Engine, point: str) -> None:
    """A start does it at once; else address, ports and mounts are given back in the background."""
    engine.api.request("POST", "/volumes/create", {"Name": "memory", "DriverOpts": OPTIONS})
    container = engine.start("-p", "80", "-v", "memory:/m")
    for again in (True, False):
        shared.arm(point)
        engine.docker("stop", "-t", "0", container)
        shared.arm("")
        if again:
            engine.docker("start", container)
            assert engine.docker("exec", container, "ls", "/m").code == 0
    assert engine.inspect(container)["State"]["Status"] == "exited"
    agree(shared, agreement.everything)
    engine.docker("rm", container)
    engine.docker("volume", "rm", "memory")


@pytest.mark.parametrize("point", END)
def test_conclusions_of_an_end_that_failed(shared: Tared, engine: Engine, point: str) -> None:
    """A container with --rm goes, one that is to be restarted is."""
    for flags in (("--rm",), ("--restart", "always")):
        container = engine.start(*flags)
        pid = engine.inspect(container)["State"]["Pid"]
        shared.arm(point)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: point in shared.passed(), "its end has failed")
        shared.arm("")
        if flags == ("--rm",):
            wait_until(lambda: not engine.containers(), "it is gone")
        else:
            wait_until(lambda: engine.inspect(container)["State"]["Pid"] not in (0, pid), "it runs again")  # noqa: B023
            assert engine.inspect(container)["RestartCount"] == 1


@pytest.mark.parametrize("point", END)
def test_an_end_that_failed_is_told_once(shared: Tared, engine: Engine, point: str) -> None:
    container = engine.start()
    told, since = len(shared.log.read_text()), time.time()
    shared.arm(point)
    os.kill(engine.inspect(container)["State"]["Pid"], signal.SIGKILL)
    wait_until(lambda: "done after all" in shared.log.read_text()[told:], "its end is dealt with")
    actions = [event["Action"] for event in events_since(engine, since)]
    assert actions == ["disconnect", "die"]


@pytest.mark.parametrize("flags", [(), ("--restart", "always")], ids=["ended", "restarted"])
def test_an_unmount_that_failed_is_no_second_end(shared: Tared, engine: Engine, flags: tuple[str, ...]) -> None:
    """It is done in the background: the container ends once, with an event of each kind; its restart doesn't wait."""
    engine.api.request("POST", "/volumes/create", {"Name": "memory", "DriverOpts": OPTIONS})
    container = engine.start("-v", "memory:/m", *flags)
    pid = engine.inspect(container)["State"]["Pid"]
    told, since = len(shared.log.read_text()), time.time()
    shared.arm("volumes.shared.unmounted")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "done after all" in shared.log.read_text()[told:], "it was unmounted after all")
    shared.arm("")
    if flags:
        wait_until(lambda: engine.inspect(container)["State"]["Pid"] not in (0, pid), "it runs again")
        assert engine.docker("exec", container, "grep", "-c", " /m ", "/proc/mounts").out == "1\n"
    actions = [event["Action"] for event in events_since(engine, since)]
    once = ("die", "disconnect", "unmount")
    assert [actions.count(action) for action in once] == [1, 1, 1], actions
    agree(shared, agreement.everything)
    engine.docker("rm", "-f", container)
    engine.docker("volume", "rm", "memory")


def events_since(engine: Engine, since: float) -> list[dict[str, Any]]:
    query = {"since": f"{since:.9f}", "until": f"{time.time():.9f}"}
    return [json.loads(line) for line in engine.api.request("GET", "/events", query=query).body.splitlines()]


@pytest.mark.parametrize("point", ["volumes.remove.row", "storage.trash.throw"])
def test_a_volume_whose_files_could_not_be_thrown_away(shared: Tared, engine: Engine, point: str) -> None:
    """They go in the background; the name is free."""
    engine.api.request("POST", "/volumes/create", {"Name": "some"})
    shared.arm(point)
    assert status(engine, "DELETE", "/volumes/some") in (204, 500)
    assert status(engine, "DELETE", "/volumes/some") in (204, 404)
    agree(shared, agreement.everything)


@pytest.fixture(scope="module")
def keeping_daemon() -> Iterator[Tared]:
    """One with a trash."""
    with armable() as daemon:
        yield daemon


@pytest.fixture
def keeping(keeping_daemon: Tared) -> Iterator[Tared]:
    """That one; afterwards no volume is there, and nothing waits."""
    keeping_daemon.arm("")
    yield keeping_daemon
    keeping_daemon.arm("")
    keeping_daemon.engine.clean()
    keeping_daemon.engine.api.request("POST", "/volumes/prune", query={"filters": '{"all":["1"]}', "trash": "0"})
    keeping_daemon.engine.api.request("DELETE", "/tare/trash")
    agree(keeping_daemon, agreement.nothing)


KEPT = ["volumes.remove.row", "volumes.remove.directory", "engine.trash.volume"]


@pytest.mark.parametrize("then", ["wait", "restore", "create"])
@pytest.mark.parametrize("point", KEPT)
def test_a_volume_that_could_not_be_put_into_the_trash(keeping: Tared, point: str, then: str) -> None:
    """Its files come there in the background, and its size is known; who restores it or takes its name earlier loses
    nothing."""
    engine = keeping.engine
    engine.run("-v", "data:/v", "@", "sh", "-c", "echo kept > /v/file")
    told = len(keeping.log.read_text())
    keeping.arm(point)
    assert status(engine, "DELETE", "/volumes/data") == 204
    if then == "create":
        assert engine.run("-v", "data:/v", "@", "ls", "/v").out == ""
        engine.docker("volume", "rm", "data")
    if then == "wait":
        wait_until(lambda: "done after all" in keeping.log.read_text()[told:], "the log says that it was done")
        entry = wait_until(
            lambda: [one for one in engine.api.request("GET", "/tare/trash").json if one["Size"]], "its size is known"
        )
        assert (entry[0]["Name"], entry[0]["Size"]) == ("data", 5)
    first = engine.api.request("GET", "/tare/trash").json[0]["Id"]
    assert status(engine, "POST", f"/tare/trash/{first}/restore") == 200
    assert engine.run("-v", "data:/v", "@", "cat", "/v/file").out == "kept\n"
    wait_until(lambda: "done after all" in keeping.log.read_text()[told:], "the log says that it was done")
    assert engine.run("-v", "data:/v", "@", "cat", "/v/file").out == "kept\n"


@pytest.mark.parametrize("point", ["engine.remove.forgotten", *KEPT])
def test_volumes_of_a_container_that_could_not_be_put_into_the_trash(keeping: Tared, point: str) -> None:
    """rm -v: they come there in the background, and back with the container."""
    engine = keeping.engine
    container = engine.create({"Cmd": ["cat", "/v/file"], "Volumes": {"/v": {}}}).json["Id"]
    engine.docker("cp", "-", f"{container}:/v", input=small_tar(file="kept"))
    told = len(keeping.log.read_text())
    keeping.arm(point)
    assert status(engine, "DELETE", f"/containers/{container}", v=1) == 204
    wait_until(lambda: "done after all" in keeping.log.read_text()[told:], "the log says that it was done")
    kinds = [entry["Kind"] for entry in engine.api.request("GET", "/tare/trash").json]
    assert sorted(kinds) == ["container", "volume"]
    assert status(engine, "POST", f"/tare/trash/{container}/restore") == 200
    assert engine.docker("start", "-a", container).out == "kept"


@pytest.mark.parametrize("point", ["images.remove.row", "storage.content.delete", "storage.layer.collect"])
def test_an_image_whose_layers_could_not_be_freed(shared: Tared, engine: Engine, point: str) -> None:
    """They are, in the background, and its documents."""
    kept = disk_of_images(shared)
    engine.import_image("other", small_tar(file="other"))
    assert disk_of_images(shared) != kept
    shared.arm(point)
    assert status(engine, "DELETE", "/images/other") in (200, 500)
    assert status(engine, "GET", "/images/other/json") == 404
    wait_until(lambda: disk_of_images(shared) == kept, "nothing of it is left")


def disk_of_images(daemon: Tared) -> list[set[str]]:
    """Names of layers and documents."""
    root = daemon.data_root
    return [names(root / "layers" / "layers"), {path.name for path in (root / "content").rglob("*") if path.is_file()}]


def small_tar(**files: str) -> bytes:
    """A tar with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()
