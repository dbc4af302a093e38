"""Real disks that are full, of blocks or of inodes, below an engine: every verb at every amount of room that is left.

For each verb the disk is filled but for a little more each time, until the verb succeeds. Whenever it fails it says so
as Docker does ("no space left on device") and names the disk; what was there is there, whole by fsck, and runs; nothing
new is left, and the same verb succeeds when there is room. TARE_SWEEP=all takes small steps on all kinds of disks.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.crashes import asker
from support.deadline import wait_until
from support.rawhttp import Answer
from support.tared import Tared

ALL = os.environ.get("TARE_SWEEP") == "all"
DISKS = {
    "ext4": ("blocks", 40 << 20, ["-N", "4096"]),
    "tmpfs": ("blocks", 40 << 20, []),
    "ext4 inodes": ("inodes", 40 << 20, ["-N", "1600"]),
    "tmpfs inodes": ("inodes", 40 << 20, []),
}
"""What gets scarce on each, and its size in bytes."""
INODES = 1600
TEXT = "no space left on device"
STEPS = {
    "blocks": [0, 8 << 10, 64 << 10, 512 << 10, 8 << 20],
    "inodes": [0, 1, 3, 6, 12, 40, 160],
}
ALL_STEPS = {"blocks": [step * 12 << 10 for step in range(150)], "inodes": [*range(60), 80, 120, 160]}


def small_tar(*names: str, size: int) -> bytes:
    """Files that all have the same content."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = size
            tar.addfile(entry, io.BytesIO(b"data" * (size // 4)))
    return data.getvalue()


class Disk(NamedTuple):
    """A small disk. scarce: "blocks" or "inodes"."""

    point: Path
    scarce: str

    @property
    def ballast(self) -> Path:
        return self.point / "ballast"

    def fill(self, left: int) -> None:
        """Takes all but so many bytes or inodes."""
        self.ballast.mkdir(exist_ok=True)
        if self.scarce == "blocks":
            _fill_blocks(self.ballast / "file", left)
            return
        made = []
        with contextlib.suppress(OSError):
            while True:
                path = self.ballast / str(len(made))
                path.touch()
                made.append(path)
        for path in made[-left:] if left else ():
            path.unlink()

    def free(self) -> None:
        subprocess.run(["rm", "-rf", str(self.ballast)], check=True)


def _fill_blocks(path: Path, left: int) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            for _ in range(2):  # a file system may find more room once it has committed what was deleted
                os.fsync(file.fileno())
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        file.truncate(max(0, file.tell() - left))
        os.fsync(file.fileno())


USED = list(DISKS) if ALL else ["ext4", "tmpfs inodes"]


@pytest.fixture(scope="module", params=USED)
def small(request: pytest.FixtureRequest) -> Iterator[tuple[Tared, Disk]]:
    """An engine whose data root is a small disk, with an image and a stopped container that has changed something."""
    scarce, size, options = DISKS[request.param]
    daemon = Tared("--trash-keep", "0", bridge=False)
    daemon.data_root.mkdir()
    if request.param.startswith("tmpfs"):
        inodes = INODES if scarce == "inodes" else 8192
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", daemon.mark, str(daemon.data_root)]
    else:
        file = daemon.home / "disk.img"
        with file.open("wb") as opened:
            opened.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", *options, str(file)], check=True)
        command = ["mount", "-o", "loop", str(file), str(daemon.data_root)]
    subprocess.run(command, check=True)
    try:
        engine = daemon.start().engine
        engine.prepare()
        engine.docker("create", "--network", "none", "--name", "work", engine.image, "sh", "-c", "echo 1")
        engine.docker("cp", "-", "work:/", input=small_tar("changed", size=70_000))
        engine.docker("commit", "work", "version")
        engine.docker("tag", "version", "other")
        asker(daemon)("POST", *FILLED)
        yield daemon, Disk(daemon.data_root, scarce)
    finally:
        try:
            daemon.stop()
        finally:
            subprocess.run(["umount", "-l", str(daemon.data_root)], capture_output=True)
            daemon.scrub()


class Verb(NamedTuple):
    """act: the request. undo: what takes back what it did."""

    act: Callable[[Tared], Answer]
    undo: Callable[[Tared], Any]


def removing(name: str) -> Callable[[Tared], Any]:
    return lambda daemon: daemon.engine.docker("rmi", name)


def posted(path: str, body: Any = None, **query: Any) -> Callable[[Tared], Answer]:
    return lambda daemon: asker(daemon)("POST", path, body, **query)


def load(daemon: Tared) -> Answer:
    return asker(daemon)("POST", "/images/load", ARCHIVE["data"])


def squash(daemon: Tared) -> Answer:
    return asker(daemon)(
        "POST", "/tare/squash", None, **{"from": daemon.engine.image, "to": "version", "tag": "squashed"}
    )


def create(daemon: Tared) -> Answer:
    run = {"Image": daemon.engine.image, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    return asker(daemon)("POST", "/containers/create", run, name="new")


def back(daemon: Tared) -> None:
    """The changes, which a checkout has saved, go with the container."""
    saved = [one["RepoTags"][0] for one in asker(daemon)("GET", "/images/json").json]
    daemon.engine.docker("rmi", *(name for name in saved if name.startswith("tare-checkout/")))


def copied(daemon: Tared) -> Answer:
    return asker(daemon)("PUT", "/containers/work/archive", LAYER, path="/")


ARCHIVE: dict[str, bytes] = {}
LAYER = small_tar(*(f"dir{number}/file" for number in range(30)), size=20_000)
VERBS = {
    "import": Verb(posted("/images/create", LAYER, fromSrc="-", repo="imported"), removing("imported")),
    "load": Verb(load, removing("loaded")),
    "commit": Verb(posted("/commit", {}, container="work", repo="committed"), removing("committed")),
    "squash": Verb(squash, removing("squashed")),
    "tag": Verb(posted("/images/version/tag", repo="tagged"), removing("tagged")),
    "checkout": Verb(posted("/containers/work/checkout", image="version"), back),
    "start": Verb(posted("/containers/work/start"), lambda daemon: daemon.engine.docker("wait", "work")),
    "create": Verb(create, lambda daemon: daemon.engine.docker("rm", "new")),
    "create a volume": Verb(
        posted("/volumes/create", {"Name": "new"}), lambda daemon: daemon.engine.docker("volume", "rm", "new")
    ),
    "cp": Verb(copied, lambda daemon: None),
}


FILLED = "/volumes/create", {"Name": "filled"}
VERBS["create and fill"] = Verb(
    posted(
        "/containers/create",
        {"Image": "box", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "Binds": ["filled:/bin"]}},
        name="new",
    ),
    lambda daemon: (
        (daemon.engine.docker("rm", "new"), daemon.engine.docker("volume", "rm", "filled"))
        and asker(daemon)("POST", *FILLED)
    ),
)


THEIR_OWN = ("cp", "start")
"""Here the disk is the container's own business: it may have others mounted."""


def complaint(answer: Answer) -> str:
    """What an answer says is wrong, "" if nothing is."""
    if answer.status >= 400:
        return str(answer.json["message"])
    for line in answer.body.decode(errors="replace").splitlines():
        if line.startswith("{") and "error" in (told := json.loads(line)):
            return str(told["error"])
    return ""


def findings(daemon: Tared) -> list[Any]:
    """What fsck says, every byte read."""
    lines = [json.loads(line) for line in asker(daemon)("GET", "/tare/fsck").body.splitlines()]
    assert "Done" in lines[-1], lines[-1]
    return [found for line in lines if (found := line.get("Finding"))]


def seen(daemon: Tared) -> tuple[Any, ...]:
    """Images with their names, containers, volumes, layers, and what is being made."""
    ask, root = asker(daemon), daemon.data_root
    images = {(one["Id"], *sorted(one["RepoTags"])) for one in ask("GET", "/images/json", all=1).json}
    containers = {one["Names"][0] for one in ask("GET", "/containers/json", all=1).json}
    volumes = {one["Name"] for one in ask("GET", "/volumes").json["Volumes"]}
    directories = [
        {name for name in os.listdir(root / place) if not name.startswith(".")}
        for place in ("layers/layers", "layers/staging", "snapshots", "containers", "volumes")
        if (root / place).is_dir()
    ]
    return images, containers, volumes, directories


def thrown_away(daemon: Tared) -> list[Path]:
    """What is still to be deleted, and would make room."""
    places = ("layers/trash", "snapshots/.trash", "containers/.trash", "volumes/.removed")
    return [path for place in places for path in (daemon.data_root / place).glob("*")]


def check_whole(daemon: Tared, before: tuple[Any, ...]) -> None:
    try:
        wait_until(lambda: seen(daemon) == before, "all is as before", 30)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{before}\n{seen(daemon)}\n{daemon.log_tail(20)}") from None
    assert findings(daemon) == []
    assert os.listdir(daemon.data_root / "volumes/filled") == ["_data"]
    assert os.listdir(daemon.data_root / "volumes/filled/_data") == []
    assert daemon.engine.run("--network", "none", "version", "head", "-c", "4", "/changed").out == "data"


CASES = [(disk, verb) for disk in USED for verb in VERBS]
if not ALL:
    FEWER = ("import", "commit", "checkout", "start")
    CASES = [(disk, verb) for disk, verb in CASES if disk == "ext4" or verb in FEWER]


@pytest.mark.parametrize(("small", "verb"), CASES, indirect=["small"])
def test_until_there_is_room(small: tuple[Tared, Disk], verb: str) -> None:
    """The verb fails as a whole with Docker's words, until it succeeds."""
    daemon, disk = small
    act, undo = VERBS[verb]
    if not ARCHIVE:
        ARCHIVE["data"] = archive(daemon)
    before, refused = seen(daemon), 0
    for left in (ALL_STEPS if ALL else STEPS)[disk.scarce]:
        wait_until(lambda: not thrown_away(daemon), "what was removed is gone", 30)
        disk.fill(left)
        try:
            answer = act(daemon)
        finally:
            disk.free()
        wrong = complaint(answer)
        if not wrong:
            break
        assert TEXT in wrong, (left, wrong, daemon.log_tail(30))
        assert f" on {disk.point}" in wrong or verb in THEIR_OWN, (left, wrong)
        refused += 1
        check_whole(daemon, before)
    assert not wrong, f"it never succeeded: {wrong}"
    undo(daemon)
    check_whole(daemon, before)
    assert refused or verb in ("tag", "create", "create a volume", "start"), "the disk was never full"


def archive(daemon: Tared) -> bytes:
    """An image with a layer of its own, which is gone from the engine."""
    engine = daemon.engine
    asker(daemon)("POST", "/images/create", LAYER + bytes(512), fromSrc="-", repo="loaded")
    data = engine.api.request("GET", "/images/loaded/get").body
    engine.docker("rmi", "loaded")
    return data


def test_room_is_made_on_a_full_disk(small: tuple[Tared, Disk]) -> None:
    """Not a byte and not an inode is left: images, containers and volumes can be removed."""
    daemon, disk = small
    engine = daemon.engine
    before = seen(daemon)
    asker(daemon)("POST", "/images/create", LAYER, fromSrc="-", repo="imported")
    engine.docker("create", "--network", "none", "-v", "named:/v", "--name", "gone", engine.image, "true")
    disk.fill(0)
    try:
        engine.docker("rm", "gone")
        engine.docker("volume", "rm", "named")
        engine.docker("rmi", "imported")
        engine.docker("system", "prune", "-f", "--filter", "label=none")
    finally:
        disk.free()
    check_whole(daemon, before)


def test_what_only_reads_works_on_a_full_disk(small: tuple[Tared, Disk]) -> None:
    """What helps to see what is wrong and to carry things away: fsck, df, save, export, diff, cp out of it."""
    daemon, disk = small
    ask, image = asker(daemon), f"{daemon.engine.image}:latest"
    disk.fill(0)
    try:
        assert findings(daemon) == []
        for path, query in (
            ("/system/df", {}),
            ("/images/version/get", {}),
            ("/containers/work/export", {}),
            ("/containers/work/changes", {}),
            ("/containers/work/archive", {"path": "/etc/passwd"}),
            ("/tare/diff", {"from": image, "to": "version"}),
        ):
            answer = ask("GET", path, None, **query)
            assert answer.status == 200, (path, answer, daemon.log_tail(20))
    finally:
        disk.free()


def test_an_engine_starts_on_a_full_disk(small: tuple[Tared, Disk]) -> None:
    """After kill -9 on a full disk, and after an orderly end: it starts, removes, and all is whole."""
    daemon, disk = small
    before = seen(daemon)
    for kill in (daemon.kill9, daemon.terminate):
        asker(daemon)("POST", "/images/create", LAYER, fromSrc="-", repo="imported")
        disk.fill(0)
        try:
            kill()
            disk.fill(0)
            daemon.start()
            daemon.engine.docker("rmi", "imported")
        finally:
            disk.free()
        check_whole(daemon, before)


FLOOD = "line=$(head -c 3000 /dev/zero | tr '\\0' x); while :; do echo $line; done"
FULL_BYTES = 64 << 10
ENDINGS = {
    "kill": posted("/containers/flood/kill"),
    "stop": posted("/containers/flood/stop", None, t=0),
    "remove": lambda daemon: asker(daemon)("DELETE", "/containers/flood", None, force=1),
}


@pytest.mark.parametrize("reserve", ["kept", "eaten"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("small", ["ext4"] if not ALL else ["ext4", "tmpfs"], indirect=True)
def test_what_fills_the_disk_can_be_ended(small: tuple[Tared, Disk], ending: str, reserve: str) -> None:
    """A container whose output takes every byte that becomes free, the engine's reserve included, can be stopped."""
    daemon, disk = small
    before, engine = seen(daemon), daemon.engine
    options = ["--network", "none", "--log-opt", "max-size=-1"]
    engine.docker("run", "-d", "--name", "flood", *options, engine.image, "sh", "-c", FLOOD)
    disk.ballast.mkdir(exist_ok=True)
    _fill_blocks(disk.ballast / "file", 1 << 20)
    try:
        wait_until(lambda: _free_bytes(disk) < FULL_BYTES, "the log takes the rest", 30)
        if reserve == "eaten":
            (disk.point / ".reserve").unlink(missing_ok=True)
            wait_until(lambda: _free_bytes(disk) < FULL_BYTES, "the log takes the reserve", 30)
        answer = ENDINGS[ending](daemon)
        assert answer.status == 204, (answer, daemon.log_tail(30))
        if ending != "remove":
            state = asker(daemon)("GET", "/containers/flood/json").json["State"]
            assert state["Status"] == "exited" and state["ExitCode"] == 137, (state, daemon.log_tail(30))
            assert asker(daemon)("DELETE", "/containers/flood").status == 204, daemon.log_tail(30)
    finally:
        disk.free()
        asker(daemon)("DELETE", "/containers/flood", None, force=1)
    check_whole(daemon, before)


def _free_bytes(disk: Disk) -> int:
    status = os.statvfs(disk.point)
    return status.f_bavail * status.f_frsize
