"""The trash: what was removed comes back whole, until age, size, a full disk or the user empties it; kill -9 at all."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared


@pytest.fixture
def engine(daemon: Tared) -> Iterator[Engine]:
    """A daemon of the test's own, with the image; its fault points can be armed."""
    daemon.make_armable()
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


def small_tar(**files: str) -> bytes:
    """A tar with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


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
    assert restore(engine, "precious").json == {"Kind": "container", "Id": container, "Name": "precious"}
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


@pytest.mark.parametrize("gone", [False, True], ids=["in the trash", "gone"])
def test_a_container_without_its_image(daemon: Tared, engine: Engine, gone: bool) -> None:
    """Its layers are its own: it starts, over a restart, too, though its image was removed; then nothing is left."""
    worked(engine, "precious")
    engine.docker("rm", "precious")
    engine.docker("rmi", engine.image)
    if gone:
        engine.api.request("DELETE", "/tare/trash", query={"kind": "image"}, check=False)
    assert restore(engine, "precious").status == 200
    daemon.restart()
    engine.docker("start", "precious")
    assert engine.exit_code("precious") == 0
    assert engine.logs("precious") == "line\nline\n"
    assert engine.docker("cp", "precious:/file", "-").out.count("kept") == 1
    assert engine.docker("commit", "precious", "again").code == 0
    assert engine.docker("run", "--rm", "again", "cat", "/file").out == "kept\n"
    engine.docker("rm", "precious")
    engine.docker("rmi", "again")
    engine.tare_cli("trash", "empty", "-f")
    wait_until(lambda: not layers(daemon) and not snapshots(daemon), "no layer is left")


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
    assert restore(engine, "nobody").json == {"message": "No such container, volume or image in the trash: nobody"}


def test_what_does_not_wait(daemon: Tared, engine: Engine) -> None:
    """--rm and an explicit wish delete at once, anonymous volumes along; an image takes its containers in the trash."""
    engine.run("-v", "/anonymous", "@", "true")
    gone = worked(engine, "gone", "-v", "/anonymous")
    engine.api.request("DELETE", f"/containers/{gone}", query={"trash": "0", "v": "1"}, check=False)
    engine.docker("volume", "create", "named")
    engine.tare_cli("volume", "rm", "--no-trash", "named")
    worked(engine, "pruned")
    engine.tare_cli("container", "prune", "-f", "--no-trash")
    assert trash(engine) == []
    worked(engine, "of-image")
    engine.docker("rm", "of-image")
    removed = engine.tare_cli("rmi", "--no-trash", engine.image).out
    assert removed.count("Deleted: sha256:") == 2
    assert trash(engine) == []
    wait_until(lambda: not snapshots(daemon) and not layers(daemon), "no layer is left")
    assert engine.docker("volume", "ls", "-q").out == "" and not volumes_aside(daemon)


def layers(daemon: Tared) -> list[str]:
    """Directories of layers."""
    return os.listdir(daemon.data_root / "layers" / "layers")


def volumes_aside(daemon: Tared) -> list[str]:
    """Directories of removed volumes."""
    return os.listdir(daemon.data_root / "volumes" / ".removed")


def filled(engine: Engine, name: str, text: str = "kept") -> None:
    """A volume with a label and a file."""
    engine.docker("volume", "create", "--label", "x=y", name)
    engine.run("-v", f"{name}:/v", "@", "sh", "-c", f"echo {text} > /v/file")


def test_a_removed_volume_comes_back(daemon: Tared, engine: Engine) -> None:
    """With its files and labels; for Docker's clients it is gone meanwhile, and its name is free."""
    filled(engine, "data")
    engine.docker("volume", "rm", "data")
    assert engine.api.request("GET", "/volumes/data").status == 404
    assert engine.docker("volume", "ls", "-q").out == ""
    entry = wait_until(lambda: [one for one in trash(engine) if one["Size"]], "its size is known")[0]
    assert (entry["Kind"], entry["Name"], entry["Size"]) == ("volume", "data", 5)
    daemon.restart()
    assert restore(engine, "data").json == {"Kind": "volume", "Id": "data", "Name": "data"}
    assert engine.run("-v", "data:/v", "@", "cat", "/v/file").out == "kept\n"
    assert engine.api.request("GET", "/volumes/data").json["Labels"] == {"x": "y"}
    assert trash(engine) == [] and not volumes_aside(daemon)


def test_a_volume_whose_name_was_taken(daemon: Tared, engine: Engine) -> None:
    """Comes back under another name only, and the error says so; the newer volume keeps its files."""
    filled(engine, "data", "old")
    engine.docker("volume", "rm", "data")
    filled(engine, "data", "new")
    failed = engine.tare_cli("trash", "restore", "data", check=False)
    assert failed.code == 1 and "--name" in failed.err and "a volume named data exists" in failed.err
    assert engine.tare_cli("trash", "restore", "--name", "older", "data").out == "older\n"
    assert engine.run("-v", "data:/n", "-v", "older:/o", "@", "cat", "/n/file", "/o/file").out == "new\nold\n"


def test_a_pruned_container_comes_back_with_its_volumes(engine: Engine) -> None:
    """prune says what it freed, which is nothing, and what waits; anonymous volumes come back with their container."""
    container = worked(engine, "pruned", "-v", "/anonymous")
    engine.docker("start", "pruned")
    engine.docker("cp", "-", "pruned:/anonymous", input=small_tar(file="kept"))
    engine.exit_code(container)
    engine.docker("rm", "-v", "pruned")
    assert {entry["Kind"] for entry in trash(engine)} == {"container", "volume"}
    engine.docker("volume", "create", "named")
    answer = engine.api.request("POST", "/volumes/prune", query={"filters": {"all": ["true"]}}).json
    assert (answer["VolumesDeleted"], answer["SpaceReclaimed"]) == (["named"], 0)
    assert answer["Tare"] == {"Trash": {"Count": 1, "Size": 0}}
    restore(engine, "pruned")
    assert engine.docker("cp", "pruned:/anonymous/file", "-").out.count("kept") == 1
    answer = engine.api.request("POST", "/containers/prune").json
    assert answer["SpaceReclaimed"] == answer["Tare"]["Trash"]["Size"] > 0
    restore(engine, "pruned")
    said = engine.tare_cli("container", "prune", "-f")
    assert "Total reclaimed space: 0B" in said.out and "went to the trash" in said.err
    assert restore(engine, "pruned").status == 200


def test_a_removed_image_comes_back(daemon: Tared, engine: Engine) -> None:
    """With all its names, its id and layers, though collection ran; as Docker's the removal says what went."""
    engine.docker("tag", engine.image, "extra:1")
    before = engine.api.request("GET", f"/images/{engine.image}/json").json
    worked(engine, "of-image")
    engine.docker("rm", "of-image")
    removed = engine.docker("rmi", "-f", before["Id"]).out
    assert removed.count("Untagged:") == 2 and removed.count("Deleted: sha256:") == 2
    assert engine.api.request("GET", "/images/extra:1/json").status == 404
    assert engine.docker("images", "-q").out == ""
    entry = next(entry for entry in trash(engine) if entry["Kind"] == "image")
    assert entry["Names"] == ["box:latest", "extra:1"] and entry["Size"] > 100_000
    engine.import_image("extra:1", small_tar(a="1"))
    daemon.restart()
    assert len(layers(daemon)) == 2
    found = restore(engine, "box").json
    assert found == {"Kind": "image", "Id": before["Id"], "Name": "box:latest", "Taken": ["extra:1"]}
    after = engine.api.request("GET", f"/images/{engine.image}/json").json
    assert {**after, "RepoTags": [], "Metadata": {}} == {**before, "RepoTags": [], "Metadata": {}}
    assert engine.run("@", "echo", "works").out == "works\n"
    assert restore(engine, "of-image").status == 200


def test_an_image_whose_names_were_taken(engine: Engine) -> None:
    """Comes back under another name only; by age its layers go for good, those of other images don't."""
    engine.import_image("mine:1", small_tar(a="1"))
    engine.docker("rmi", "mine:1")
    engine.import_image("mine:1", small_tar(a="2"))
    failed = engine.tare_cli("trash", "restore", "mine:1", check=False)
    assert failed.code == 1 and "another image is named mine:1" in failed.err and "--name" in failed.err
    assert engine.tare_cli("trash", "restore", "mine:1", "--name", "mine:0").out == "mine:0\n"
    assert engine.docker("images", "-q", "mine").out.count("\n") == 2
    assert engine.tare_cli("trash", "ls", "-q").out == ""


def test_one_name_of_several_kinds(engine: Engine) -> None:
    """Where container, volume and image have one name, --kind says which."""
    engine.import_image("same:latest", small_tar(a="1"))
    engine.docker("rmi", "same")
    filled(engine, "same")
    engine.docker("volume", "rm", "same")
    assert "say which with --kind" in engine.tare_cli("trash", "restore", "same", check=False).err
    assert engine.tare_cli("trash", "restore", "--kind", "volume", "same").out == "same\n"
    assert engine.tare_cli("trash", "restore", "same").out == "same:latest\n"
    assert restore(engine, "same", kind="pod").status == 400


def test_the_bytes_of_images_are_counted_once(daemon: Tared, engine: Engine) -> None:
    """What emptying says that it frees is what the ledger had, and is gone from the disk."""
    engine.import_image("other:1", small_tar(a="x" * 70_000))
    engine.docker("commit", worked(engine, "one"), "child:1")
    engine.docker("rm", "one")
    engine.docker("rmi", "child:1", engine.image, "other:1")
    usage = engine.api.request("GET", "/v1.52/system/df", check=False).json
    held = sum(entry["Size"] for entry in trash(engine))
    assert usage["LayersSize"] == 0 and usage["Tare"]["Trash"] == {"Count": 4, "Size": held}
    freed = engine.api.request("DELETE", "/tare/trash", check=False).json["SpaceReclaimed"]
    assert freed == held > 70_000
    wait_until(lambda: not layers(daemon), "no layer is left")
    daemon.restart()
    assert not snapshots(daemon) and not volumes_aside(daemon)


def test_emptying_gives_the_space_back(daemon: Tared, engine: Engine) -> None:
    """One or all, by the command line; nothing of them stays on the disk."""
    for name in ("one", "two", "three"):
        worked(engine, name)
        engine.docker("rm", name)
    lines = engine.tare_cli("trash", "ls").out.splitlines()
    assert lines[0].split() == ["ID", "KIND", "NAME", "IMAGE", "REMOVED", "SIZE"] and len(lines) == 4
    assert engine.tare_cli("trash", "restore", "two").out == "two\n"
    assert "1 " not in engine.tare_cli("trash", "empty", "-f", "one").err
    assert [entry["Name"] for entry in trash(engine)] == ["three"]
    assert "Total reclaimed space" in engine.tare_cli("trash", "empty", "-f").out
    assert trash(engine) == []
    assert len(snapshots(daemon)) == 1
    listed = [name for name in os.listdir(daemon.data_root / "containers") if not name.startswith(".")]
    assert len(listed) == 1


@pytest.mark.parametrize(
    ("flag", "left"), [("--trash-max=150k", 1), ("--trash-keep=0", 0), ("--trash-keep=1s", 0), ("--trash-free=100%", 0)]
)
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


def test_a_disk_that_runs_full() -> None:
    """What waits goes, the oldest first, as soon as less is free than is to be; what is removed then goes at once."""
    daemon = Tared("--trash-free=40%")
    daemon.data_root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=52m", "tare-test", str(daemon.data_root)], check=True)
    with daemon:
        engine = daemon.engine
        engine.prepare()
        for name, megabytes in (("old", 4), ("newer", 1), ("big", 25), ("last", 1)):
            script = f"head -c {megabytes}000000 /dev/zero > /v/file"
            engine.run("-v", f"{name}:/v", "@", "sh", "-c", script)
            if name in ("old", "newer"):
                engine.docker("volume", "rm", name)
        wait_until(lambda: all(entry["Size"] for entry in trash(engine)), "their sizes are known")
        assert [entry["Name"] for entry in trash(engine)] == ["old", "newer"]
        engine.docker("volume", "rm", "last")
        wait_until(lambda: [entry["Name"] for entry in trash(engine)] == ["newer"], "the oldest has made room")
        assert engine.docker("volume", "ls", "-q").out == "big\n"


@pytest.mark.parametrize(
    "point",
    ["engine.remove.marked", "engine.remove.snapshot", "engine.remove.directory", "engine.trash.thrown"],
)
def test_killed_during_removal(daemon: Tared, engine: Engine, point: str) -> None:
    """Wherever the engine is killed, the container is in the trash afterwards, and comes back whole."""
    worked(engine, "precious")
    killed_at(daemon, point, lambda: engine.api.request("DELETE", "/containers/precious", check=False))
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
    empty = point == "engine.trash.dropped"
    method, path = ("DELETE", "/tare/trash") if empty else ("POST", "/tare/trash/precious/restore")
    killed_at(daemon, point, lambda: engine.api.request(method, path, check=False))
    assert trash(engine) == []
    there = engine.docker("ps", "-aq").out.split()
    assert len(there) == (1 if point == "engine.trash.restored" else 0)
    assert len(snapshots(daemon)) == len(there)
    assert Path(daemon.data_root / "containers").is_dir()


REMOVE_VOLUME = (
    "volumes.remove.begin", "engine.trash.insert", "volumes.remove.row", "volumes.remove.directory",
    "engine.trash.volume",
)  # fmt: skip
RESTORE_VOLUME = ("volumes.restore.moved", "engine.trash.delete", "volumes.restore.row", "engine.trash.restored")
# More points: tests/images/test_image_faults.py.
REMOVE_IMAGE = ("engine.trash.image", "images.remove.row", "storage.content.delete", "storage.layer.collect")
RESTORE_IMAGE = ("engine.trash.delete", "images.record.done", "engine.trash.restored")


def killed_at(daemon: Tared, point: str, verb: Callable[[], object]) -> None:
    """Kills the daemon at a point of a verb, and starts it again."""
    daemon.arm(f"{point}:kill")
    with contextlib.suppress(OSError, EOFError):
        verb()
    daemon.wait_dead()
    daemon.arm("")
    daemon.start()


def test_killed_during_removal_of_a_volume(daemon: Tared, engine: Engine) -> None:
    """Wherever the engine is killed, the volume is there or in the trash, with its files."""
    filled(engine, "data")
    for point in REMOVE_VOLUME:
        killed_at(daemon, point, lambda: engine.api.request("DELETE", "/volumes/data", check=False))
        if not trash(engine):
            engine.docker("volume", "rm", "data")
        assert restore(engine, "data").status == 200, point
        assert engine.run("-v", "data:/v", "@", "cat", "/v/file").out == "kept\n", point
        assert not volumes_aside(daemon), point


def test_killed_during_restore_of_a_volume(daemon: Tared, engine: Engine) -> None:
    """The volume is there or still in the trash, under its new name, with its files."""
    name = "data0"
    filled(engine, name)
    for number, point in enumerate(RESTORE_VOLUME, 1):
        engine.docker("volume", "rm", name)
        name = f"data{number}"
        killed_at(daemon, point, lambda: restore(engine, f"data{number - 1}", name=name))  # noqa: B023
        for entry in trash(engine):
            assert restore(engine, entry["Id"], name=name).status == 200, point
        assert engine.run("-v", f"{name}:/v", "@", "cat", "/v/file").out == "kept\n", point
        assert engine.docker("volume", "ls", "-q").out == f"{name}\n" and not volumes_aside(daemon), point


def test_killed_before_anonymous_volumes_went(daemon: Tared, engine: Engine) -> None:
    """rm -v that was cut short: the container is in the trash, and its volume with it."""
    container = worked(engine, "precious", "-v", "/anonymous")
    engine.docker("cp", "-", f"{container}:/anonymous", input=small_tar(file="kept"))
    killed_at(daemon, "engine.remove.forgotten", lambda: engine.docker("rm", "-v", "precious", check=False))
    assert engine.docker("volume", "ls", "-q").out == ""
    assert restore(engine, "precious").status == 200
    assert engine.docker("cp", "precious:/anonymous/file", "-").out.count("kept") == 1


def test_killed_during_removal_and_restore_of_an_image(daemon: Tared, engine: Engine) -> None:
    """The image is there or in the trash, and either way works again; no layer is lost, none is left over."""
    image_id = engine.api.request("GET", f"/images/{engine.image}/json").json["Id"]
    for point in (*REMOVE_IMAGE, *RESTORE_IMAGE):
        if point in REMOVE_IMAGE:
            killed_at(daemon, point, lambda: engine.api.request("DELETE", f"/images/{engine.image}", check=False))
        else:
            engine.docker("rmi", engine.image)
            killed_at(daemon, point, lambda: restore(engine, engine.image))
        for entry in trash(engine):
            assert restore(engine, entry["Id"]).status == 200, point
        engine.docker("tag", image_id, engine.image)
        assert engine.run("@", "echo", "works").out == "works\n", point
        assert len(layers(daemon)) == 1, point


def test_killed_while_emptying(daemon: Tared, engine: Engine) -> None:
    """What was dropped is gone, and nothing of it is left on the disk after the next start."""
    filled(engine, "data")
    engine.docker("volume", "rm", "data")
    engine.docker("rmi", engine.image)
    for kind, left in (("volume", {"image"}), ("image", set())):
        query = {"kind": kind}
        killed_at(
            daemon,
            "engine.trash.dropped",
            lambda: engine.api.request("DELETE", "/tare/trash", query=query, check=False),  # noqa: B023
        )
        assert {entry["Kind"] for entry in trash(engine)} == left
        assert (len(layers(daemon)), len(volumes_aside(daemon))) == (len(left), 0)
