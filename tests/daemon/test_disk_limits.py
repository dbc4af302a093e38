"""Containers and volumes that may take so many bytes of the disk: `--storage-opt size=…`, `-o size=…`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.crashes import asker
from support.engine import Engine
from support.quota_disks import KINDS, quota_disk
from support.tared import Tared
from tare.kernel import quotas as kernel

MIB = 1 << 20
FILL = "dd if=/dev/zero of={0} bs=64k count={1} 2>&1; sync; stat -c 'size %s' {0} 2>/dev/null || echo size 0"


@pytest.fixture(scope="module", params=KINDS)
def limited(request: pytest.FixtureRequest) -> Iterator[Tared]:
    """An engine whose data root can limit trees."""
    daemon = Tared(bridge=False)
    daemon.make_armable()
    try:
        with quota_disk(request.param, daemon.home, daemon.data_root):
            try:
                daemon.start().engine.prepare()
                yield daemon
            finally:
                daemon.stop()
    finally:
        daemon.scrub()


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "limited" in request.fixturenames:
        daemon: Tared = request.getfixturevalue("limited")
        daemon.engine.clean()
        ask = asker(daemon)
        for volume in ask("GET", "/volumes").json["Volumes"]:
            ask("DELETE", f"/volumes/{volume['Name']}")
        ask("DELETE", "/tare/trash")


def written(engine: Engine, container: str, name: str, mib: int) -> int:
    """How many bytes of so many a container that runs could write to a file; the rest failed for want of space."""
    found = engine.docker("exec", container, "sh", "-c", FILL.format(name, mib * 16)).out
    size = int(found.rpartition("size ")[2])
    assert size == mib * MIB or "No space left" in found or "quota exceeded" in found, found
    return size


def projects(daemon: Tared) -> dict[int, int]:
    """What the kernel limits, of the ids that the engine has or had: project to bytes."""
    with contextlib.closing(sqlite3.connect(f"file:{daemon.data_root}/tare.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'projects'").fetchall()
    last = rows[0][0] if rows else 0
    fd = os.open(daemon.data_root, os.O_RDONLY)
    try:
        asked = {number: kernel.usage(fd, number)[2] for number in range(max(1, last - 60), last + 1)}
    finally:
        os.close(fd)
    return {number: size for number, size in asked.items() if size}


def test_a_container_is_held_to_it_and_others_are_not(limited: Tared) -> None:
    """A write beyond it fails, in its own files and in the image's; what is removed can be written again."""
    engine = limited.engine
    small = engine.start("--network", "none", "--storage-opt", "size=8M")
    other = engine.start("--network", "none")
    assert 7 * MIB <= written(engine, small, "/big", 30) <= 8 * MIB
    assert written(engine, other, "/big", 30) == 30 * MIB
    engine.docker("exec", small, "rm", "/big")
    assert written(engine, small, "/bin/again", 4) == 4 * MIB
    assert engine.inspect(small)["HostConfig"]["StorageOpt"] == {"size": "8M"}
    shown = engine.docker("exec", small, "df", "-k", "/").out.split()
    assert int(shown[shown.index("overlay") + 1]) == 8 << 10
    assert sorted(projects(limited).values()) == [8 * MIB]


def test_a_full_container_can_be_started_again(limited: Tared) -> None:
    """To remove what fills it; the room that the mount needed is taken back."""
    engine = limited.engine
    name = engine.start("--network", "none", "--storage-opt", "size=6M")
    written(engine, name, "/big", 30)
    engine.docker("restart", "-t", "0", name)
    assert sorted(projects(limited).values()) == [6 * MIB]
    engine.docker("exec", name, "rm", "/big")
    assert 5 * MIB <= written(engine, name, "/big", 30) <= 6 * MIB


def test_it_outlives_the_engine(limited: Tared) -> None:
    """Through kill -9 while it runs, and its own restarts; a removed container leaves no limit behind."""
    engine = limited.engine
    name = engine.start("--network", "none", "--storage-opt", "size=8M")
    limited.kill9()
    limited.start()
    assert written(engine, name, "/a", 4) == 4 * MIB
    assert written(engine, name, "/b", 30) <= 4 * MIB
    engine.docker("exec", name, "rm", "/b")
    engine.docker("restart", "-t", "0", name)
    assert written(engine, name, "/b", 30) <= 4 * MIB
    asker(limited)("DELETE", f"/containers/{name}", force=1, trash=0)
    assert projects(limited) == {}


def test_it_is_changed_while_the_container_runs(limited: Tared) -> None:
    """Up, below what there is (with a warning), away, and for the first time in one that has files."""
    engine = limited.engine
    name = engine.start("--network", "none", "--storage-opt", "size=4M")
    assert written(engine, name, "/a", 30) <= 4 * MIB
    assert engine.tare_cli("update", "--storage-opt", "size=12M", name).out.strip() == name
    assert engine.inspect(name)["HostConfig"]["StorageOpt"] == {"size": "12M"}
    assert 7 * MIB <= written(engine, name, "/b", 30) <= 9 * MIB
    told = asker(limited)("POST", f"/containers/{name}/update", {"StorageOpt": {"size": "1M"}}).json
    assert "take" in told["Warnings"][0] and "already" in told["Warnings"][0]
    engine.docker("exec", name, "rm", "/a")
    assert written(engine, name, "/c", 1) < 64 << 10
    engine.tare_cli("update", "--storage-opt", "size=0", name)
    assert written(engine, name, "/c", 30) == 30 * MIB
    late = engine.start("--network", "none")
    assert written(engine, late, "/a", 5) == 5 * MIB
    engine.tare_cli("update", "--storage-opt", "size=8M", late)
    assert written(engine, late, "/b", 30) <= 3 * MIB
    engine.docker("exec", late, "rm", "/a")
    assert written(engine, late, "/c", 5) >= 4 * MIB


def test_what_comes_back_is_limited(limited: Tared) -> None:
    """From the trash, from a version (checkout), as a fork; with a removal by force nothing of it stays."""
    engine, ask = limited.engine, asker(limited)
    name = engine.start("--network", "none", "--storage-opt", "size=6M")
    written(engine, name, "/a", 3)
    engine.docker("rm", "-f", name)
    assert list(projects(limited).values()) == [6 * MIB]
    assert ask("POST", f"/tare/trash/{name}/restore").status < 300
    engine.docker("start", name)
    assert written(engine, name, "/b", 30) <= 3 * MIB
    engine.docker("commit", name, "kept")
    assert ask("POST", f"/containers/{name}/checkout", image="kept", force=1).status < 300
    assert 5 * MIB <= written(engine, name, "/c", 30) <= 6 * MIB
    ask("DELETE", f"/containers/{name}", force=1, trash=0)
    for one in ask("GET", "/images/json").json:
        if any(tag.startswith(("tare-checkout/", "kept")) for tag in one["RepoTags"] or ()):
            engine.docker("rmi", "-f", one["Id"])


@pytest.mark.parametrize("step", ["engine.limit.recorded", "storage.quotas.limited"])
def test_killed_on_the_way(limited: Tared, step: str) -> None:
    """A change that was written down is made by the next engine: the word and the kernel agree."""
    engine = limited.engine
    name = engine.start("--network", "none")
    written(engine, name, "/a", 2)
    limited.arm(f"{step}:kill")
    with contextlib.suppress(OSError, EOFError):
        asker(limited)("POST", f"/containers/{name}/update", {"StorageOpt": {"size": "5M"}})
    limited.wait_dead()
    limited.arm("")
    limited.start()
    assert engine.inspect(name)["HostConfig"]["StorageOpt"] == {"size": "5M"}
    assert list(projects(limited).values()) == [5 * MIB]
    assert written(engine, name, "/b", 30) <= 3 * MIB


def test_a_failed_change_is_taken_back(limited: Tared) -> None:
    engine = limited.engine
    name = engine.start("--network", "none", "--storage-opt", "size=5M")
    body = {"StorageOpt": {"size": "9M"}, "Egress": "nonsense"}
    assert asker(limited)("POST", f"/containers/{name}/update", body).status == 400
    limited.arm("engine.limit.recorded")
    assert asker(limited)("POST", f"/containers/{name}/update", {"StorageOpt": {"size": "9M"}}).status == 500
    limited.arm("")
    assert engine.inspect(name)["HostConfig"]["StorageOpt"] == {"size": "5M"}
    assert list(projects(limited).values()) == [5 * MIB]


def test_a_container_cannot_leave_its_project(limited: Tared) -> None:
    """Root in it can neither give a file to another project nor keep new ones out of its own; nor through exec."""
    engine = limited.engine
    for options in (("--storage-opt", "size=5M"), ("-v", "held:/data")):
        if options[0] == "-v":
            engine.docker("volume", "create", "-o", "size=5M", "held")
        name = engine.start("--network", "none", *options)
        place = "/data" if options[0] == "-v" else "/"
        for command in (["chattr", "-p", "0", place], ["chattr", "-P", place]):
            found = engine.docker("exec", name, *command, check=False)
            assert "not permitted" in (found.out + found.err).lower() or found.code == 127, found
        engine.docker("rm", "-f", name)


def test_a_volume_is_held_to_its_size(limited: Tared) -> None:
    """A plain volume beside it isn't; over restarts, in the trash and back, with what the image had in it."""
    engine, ask = limited.engine, asker(limited)
    engine.docker("volume", "create", "-o", "size=6M", "small")
    engine.docker("volume", "create", "plain")
    assert ask("GET", "/volumes/small").json["Options"] == {"size": "6M"}
    name = engine.start("--network", "none", "-v", "small:/bin/small", "-v", "plain:/plain", "-v", "small:/etc/x")
    assert 5 * MIB <= written(engine, name, "/bin/small/a", 30) <= 6 * MIB
    assert written(engine, name, "/plain/a", 20) == 20 * MIB and written(engine, name, "/own", 20) == 20 * MIB
    limited.kill9()
    limited.start()
    engine.docker("exec", name, "rm", "/bin/small/a")
    assert written(engine, name, "/bin/small/a", 4) == 4 * MIB
    engine.docker("rm", "-f", name)
    engine.docker("volume", "rm", "small")
    assert list(projects(limited).values()) == [6 * MIB]
    assert ask("POST", "/tare/trash/small/restore", name="again").status < 300
    name = engine.start("--network", "none", "-v", "again:/v")
    assert written(engine, name, "/v/b", 30) <= 2 * MIB
    engine.docker("rm", "-f", name)
    assert ask("DELETE", "/volumes/again", trash=0).status == 204
    assert projects(limited) == {}
    engine.docker("volume", "create", "-o", "size=8M", "filled")
    name = engine.start("--network", "none", "-v", "filled:/etc")
    assert engine.docker("exec", name, "cat", "/etc/passwd").out
    assert written(engine, name, "/etc/big", 30) <= 8 * MIB


@pytest.mark.parametrize("step", ["volumes.create.row", "volumes.create.directory", "storage.quotas.limited"])
def test_a_volume_that_was_being_made(limited: Tared, step: str) -> None:
    """Killed on the way: it is there, and limited."""
    limited.arm(f"{step}:kill")
    with contextlib.suppress(OSError, EOFError):
        asker(limited)("POST", "/volumes/create", {"Name": "half", "DriverOpts": {"size": "3M"}})
    limited.wait_dead()
    limited.arm("")
    limited.start()
    assert list(projects(limited).values()) == [3 * MIB]
    name = limited.engine.start("--network", "none", "-v", "half:/v")
    assert written(limited.engine, name, "/v/a", 30) <= 3 * MIB


def test_wrong_sizes(limited: Tared) -> None:
    """Docker's texts; nothing is made."""
    ask = asker(limited)
    for option, text in (({"foo": "1"}, "Unknown option foo"), ({"size": "much"}, "invalid size: 'much'")):
        run = {"Image": limited.engine.image, "Cmd": ["true"], "HostConfig": {"StorageOpt": option}}
        answer = ask("POST", "/containers/create", run)
        assert (answer.status, answer.message) == (400, text)
    options = {"size": "1M", "type": "tmpfs", "device": "tmpfs"}
    assert "limits a directory" in ask("POST", "/volumes/create", {"Name": "both", "DriverOpts": options}).message
    assert projects(limited) == {} and ask("GET", "/volumes").json["Volumes"] == []


@pytest.fixture(scope="module")
def unlimited() -> Iterator[Tared]:
    """An engine whose data root limits nothing, on any kernel: it is in memory."""
    daemon = Tared(bridge=False)
    with tempfile.TemporaryDirectory(prefix="tare-quotas-", dir="/dev/shm") as place:
        daemon.data_root = Path(place)
        try:
            daemon.start().engine.prepare()
            yield daemon
        finally:
            daemon.stop()
            daemon.scrub()


def test_without_project_quotas(unlimited: Tared) -> None:
    """Refused at create, update and for volumes, with what is missing and the remedy; nothing is left; doctor tells."""
    ask, engine = asker(unlimited), unlimited.engine
    run: dict[str, Any] = {"Image": engine.image, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
    refused = ask("POST", "/containers/create", {**run, "HostConfig": {"StorageOpt": {"size": "1G"}}}, name="no")
    assert refused.status == 501
    assert "--storage-opt is supported only for overlay over xfs with 'pquota' mount option" in refused.message
    assert "has no project quotas" in refused.message and "tune2fs -O project,quota" in refused.message
    assert ask("GET", "/containers/json", all=1).json == []
    name = engine.start("--network", "none")
    before = engine.inspect(name)
    assert ask("POST", f"/containers/{name}/update", {"StorageOpt": {"size": "1G"}}).status == 501
    assert engine.inspect(name) == before
    volume = ask("POST", "/volumes/create", {"Name": "no", "DriverOpts": {"size": "1G"}})
    assert volume.status == 400
    assert volume.message.startswith("create no: quota size requested but no quota support: ")
    assert ask("GET", "/volumes").json["Volumes"] == []
    assert ask("POST", "/volumes/create", {"Name": "zero", "DriverOpts": {"size": "0"}}).status == 201
    engine.docker("volume", "rm", "zero")
    engine.docker("rm", "-f", name)
