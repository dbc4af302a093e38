"""The trash: removed containers come back whole, until age, size or the user empties it; kill -9 at every step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared


@pytest.fixture
def engine(daemon: Tared) -> Iterator[Engine]:
    """A daemon of the test's own, with the image."""
    daemon.start()
    daemon.engine.prepare()
    yield daemon.engine


def trash(engine: Engine) -> list[Any]:
    """GET /tare/trash."""
    found: list[Any] = engine.api.request("GET", "/tare/trash", check=False).json
    return found


def restore(engine: Engine, ref: str, **query: str) -> Any:
    """POST /tare/trash/{id}/restore."""
    return engine.api.request("POST", f"/tare/trash/{ref}/restore", query=query, check=False)


def worked(engine: Engine, name: str, *flags: str) -> str:
    """A container that wrote a file and a line and ended."""
    script = "echo kept > /file; echo line; sleep 0"
    container = engine.docker("run", "-d", "--name", name, *flags, engine.image, "sh", "-c", script).out.strip()
    engine.exit_code(container)
    return container


def snapshots(daemon: Tared) -> list[str]:
    """Directories of snapshots, spares and trash aside."""
    return [name for name in os.listdir(daemon.data_root / "snapshots") if not name.startswith(".")]


def test_a_removed_container_comes_back(daemon: Tared, engine: Engine) -> None:
    """With its id, name, settings, files and log; it can be started again; over a restart of the daemon, too."""
    container = worked(engine, "precious", "-e", "A=b", "--label", "x=y")
    before = engine.inspect(container)
    engine.docker("rm", "precious")
    assert engine.docker("ps", "-aq").out == ""
    assert engine.api.request("GET", "/containers/precious/json").status == 404
    entry = wait_until(lambda: [one for one in trash(engine) if one["Size"]], "its size is known")[0]
    assert (entry["Kind"], entry["Id"], entry["Name"]) == ("container", container, "precious")
    daemon.restart()
    assert restore(engine, "precious").json == {"Id": container, "Name": "precious"}
    assert trash(engine) == []
    after = engine.inspect(container)
    assert {key: after[key] for key in ("Id", "Name", "Config", "HostConfig", "Created")} == {
        key: before[key] for key in ("Id", "Name", "Config", "HostConfig", "Created")
    }
    assert after["State"]["Status"] == "exited"
    assert engine.logs("precious") == "line\n"
    assert engine.docker("cp", "precious:/file", "-").out.count("kept") == 1
    engine.docker("start", "precious")
    assert engine.exit_code("precious") == 0
    assert engine.logs("precious") == "line\nline\n"


def test_its_name_may_be_taken(engine: Engine) -> None:
    """The name is free at once; a restored container gets one with a number, or the name that is asked for."""
    for _ in range(3):
        worked(engine, "same")
        engine.docker("rm", "same")
    worked(engine, "same")
    assert [entry["Name"] for entry in trash(engine)] == ["same"] * 3
    assert restore(engine, "same").json["Name"] == "same-2"
    assert restore(engine, "same", name="other").json["Name"] == "other"
    answer = restore(engine, "same", name="other")
    assert answer.status == 409
    assert restore(engine, "nobody").json == {"message": "No such container in the trash: nobody"}


def test_what_does_not_wait(daemon: Tared, engine: Engine) -> None:
    """--rm, prune and an explicit wish delete at once; a removed image takes its containers in the trash along."""
    engine.run("@", "true")
    worked(engine, "pruned")
    engine.docker("container", "prune", "-f")
    gone = worked(engine, "gone")
    engine.api.request("DELETE", f"/containers/{gone}", query={"trash": "0"}, check=False)
    assert trash(engine) == []
    engine.docker("tag", engine.image, "extra")
    worked(engine, "of-image")
    engine.docker("rm", "of-image")
    assert len(trash(engine)) == 1
    engine.docker("rmi", "extra")
    assert len(trash(engine)) == 1
    removed = engine.docker("rmi", engine.image).out
    assert removed.count("Deleted: sha256:") == 2
    assert trash(engine) == []
    assert snapshots(daemon) == []


def test_emptying_gives_the_space_back(daemon: Tared, engine: Engine) -> None:
    """One or all, by the command line; nothing of them stays on the disk."""
    for name in ("one", "two", "three"):
        worked(engine, name)
        engine.docker("rm", name)
    lines = engine.tare_cli("trash", "ls").out.splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "NAME", "IMAGE", "REMOVED", "SIZE"] and len(lines) == 4
    assert engine.tare_cli("trash", "restore", "two").out == "two\n"
    assert "1 " not in engine.tare_cli("trash", "empty", "-f", "one").err
    assert [entry["Name"] for entry in trash(engine)] == ["three"]
    assert "Total reclaimed space" in engine.tare_cli("trash", "empty", "-f").out
    assert trash(engine) == []
    assert len(snapshots(daemon)) == 1
    listed = [name for name in os.listdir(daemon.data_root / "containers") if not name.startswith(".")]
    assert len(listed) == 1


@pytest.mark.parametrize(("flag", "left"), [("--trash-max=150k", 1), ("--trash-keep=0", 0), ("--trash-keep=1s", 0)])
def test_bounds(flag: str, left: int) -> None:
    """The oldest goes when there is too much; what is too old goes by itself; no time means no trash."""
    with Tared(flag) as daemon:
        daemon.engine.prepare()
        for name in ("old", "new"):
            script = "head -c 100000 /dev/zero > /file"
            container = daemon.engine.docker("run", "-d", "--name", name, daemon.engine.image, "sh", "-c", script).out
            daemon.engine.exit_code(container.strip())
            daemon.engine.docker("rm", name)
        wait_until(lambda: len(trash(daemon.engine)) == left, f"{left} stay")
        assert [entry["Name"] for entry in trash(daemon.engine)] == ["new"][:left]


@pytest.mark.parametrize(
    "point",
    ["engine.remove.marked", "engine.remove.snapshot", "engine.remove.directory", "engine.trash.thrown"],
)
def test_killed_during_removal(daemon: Tared, engine: Engine, point: str) -> None:
    """Wherever the engine is killed, the container is in the trash afterwards, and comes back whole."""
    worked(engine, "precious")
    daemon.restart(env={"TARE_FAULT": f"{point}:kill"})
    engine.docker("rm", "precious", check=False)
    daemon.wait_dead()
    daemon.start()
    assert engine.docker("ps", "-aq").out == ""
    assert restore(engine, "precious").status == 200
    assert engine.logs("precious") == "line\n"
    engine.docker("start", "precious")
    assert engine.exit_code("precious") == 0


@pytest.mark.parametrize("point", ["engine.trash.restored", "engine.trash.dropped"])
def test_killed_during_restore_and_emptying(daemon: Tared, engine: Engine, point: str) -> None:
    """A container is in the list or in the trash or gone, and no file is left of what is gone."""
    worked(engine, "precious")
    engine.docker("rm", "precious")
    daemon.restart(env={"TARE_FAULT": f"{point}:kill"})
    with pytest.raises((OSError, EOFError)):
        if point == "engine.trash.restored":
            restore(engine, "precious")
        else:
            engine.api.request("DELETE", "/tare/trash", check=False)
    daemon.wait_dead()
    daemon.start()
    assert trash(engine) == []
    there = engine.docker("ps", "-aq").out.split()
    assert len(there) == (1 if point == "engine.trash.restored" else 0)
    assert len(snapshots(daemon)) == len(there)
    assert Path(daemon.data_root / "containers").is_dir()
