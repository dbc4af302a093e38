"""`tare move` and kill -9 of either engine at each step: the container is whole at one of the two, a repeat ends it.

Every point with TARE_SWEEP=all; else those between which something changes hands.
"""

from __future__ import annotations

import os

import pytest

from support.engine import Engine
from support.tared import Tared

FEW = ("images.receive.read", "engine.arrive.part", "engine.arrive.volume-filled", "engine.arrive.stored")
TARGET = (
    *FEW,
    "engine.arrive.begin",
    "engine.arrive.description.write",
    "storage.carry.unpacked",
    "engine.arrive.volumes.write",
    "engine.arrive.volume",
    "engine.arrive.log",
    "storage.snapshot.adopt",
    "engine.arrive.snapshot",
    "engine.arrive.started",
)
SOURCE = ("engine.depart.marked", "engine.depart.leaving", "engine.remove.snapshot", "engine.depart.held")
if os.environ.get("TARE_SWEEP") != "all":
    TARGET, SOURCE = FEW, SOURCE[:3]


def prepared(engine: Engine) -> str:
    """A running container with a file of its own and a volume."""
    name = engine.unique()
    script = "echo mine >> /mine; echo kept > /data/f; sleep 1000"
    flags = ("-d", "--stop-signal", "KILL", "--name", name, "-v", f"{name}:/data")
    engine.docker("run", *flags, engine.image, "sh", "-c", script)
    return name


def names(engine: Engine) -> list[str]:
    return [one["Names"][0][1:] for one in engine.api.request("GET", "/containers/json?all=1").json]


def check_moved(near: Engine, far: Engine, name: str) -> None:
    assert (names(near), names(far)) == ([], [name])
    assert far.inspect(name)["State"]["Status"] == "running"
    assert far.docker("exec", name, "sh", "-c", "sort -u /mine /data/f").out == "kept\nmine\n"


@pytest.mark.parametrize("point", TARGET)
def test_the_target_dies(near: Engine, daemon: Tared, point: str) -> None:
    """What was whole before is whole after; the same command carries it over, and nothing is there twice."""
    daemon.start(env={"TARE_FAULT": f"{point}:kill"})
    name = prepared(near)
    assert near.tare_cli("move", "--stop", name, f"unix://{daemon.socket}", check=False).code == 1
    daemon.wait_dead()
    far = daemon.start().engine
    whole_there = point in ("engine.arrive.stored", "engine.arrive.started")
    assert names(far) == ([name] if whole_there else [])
    assert (names(near) == []) == (point == "engine.arrive.started")
    near.tare_cli("move", "--stop", name, f"unix://{daemon.socket}")
    check_moved(near, far, name)


@pytest.mark.parametrize("point", SOURCE)
def test_the_source_dies(far: Engine, daemon: Tared, point: str) -> None:
    """The source's restart policy doesn't start it again while it may run elsewhere."""
    near = daemon.start(env={"TARE_FAULT": f"{point}:kill"}).engine
    near.prepare()
    name = prepared(near)
    near.docker("update", "--restart", "always", name)
    assert near.tare_cli("move", "--stop", name, f"unix://{far.socket}", check=False).code == 1
    daemon.wait_dead()
    near = daemon.start().engine
    near.tare_cli("move", "--stop", name, f"unix://{far.socket}")
    check_moved(near, far, name)
