"""The volumes room on real directories: names, options, creation, removal, copy-up, and a crash at every step."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare import faults
from tare.errors import Conflict, InvalidArgument, NotFound, TareError
from tare.storage.database import Database
from tare.storage.merged import Stack
from tare.volumes import shared
from tare.volumes.records import ANONYMOUS_LABEL, LocalMount
from tare.volumes.rules import check_name, parse_local_options, parse_size
from tare.volumes.volumes import Volumes

POINTS = (
    "volumes.create.row", "volumes.create.mkdir", "volumes.create.directory", "volumes.fill.copied",
    "volumes.fill.complete", "volumes.fill.moved", "volumes.fill.placed", "volumes.remove.begin", "volumes.remove.row",
    "volumes.remove.directory", "storage.database.commit", "storage.trash.throw", "storage.trash.delete",
)  # fmt: skip


def open_volumes(root: Path) -> Volumes:
    """The room as an engine opens it."""
    return Volumes(root / "volumes", Database(root / "state.db"))


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    """An empty room."""
    return open_volumes(tmp_path)


def layer(root: Path, name: str, **files: str) -> Path:
    """A layer directory with /data in it."""
    made = root / name
    (made / "data").mkdir(parents=True)
    for file, text in files.items():
        (made / "data" / file).write_text(text)
    return made


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/abs", ".hidden", "-x", "_x", "a\0b", "ab\n", "é1", "a b", "..", "a" * 256, "x"]
)
def test_moby_4f84bcb967_names_that_would_lead_elsewhere(volumes: Volumes, name: str, tmp_path: Path) -> None:
    """moby-4f84bcb967: a volume's name is never a path: `..`, `/`, NUL, over 255 are refused, and nothing is made."""
    before = sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path / "volumes"))
    for verb in (volumes.create, volumes.directory, check_name):
        with pytest.raises(InvalidArgument):
            verb(name)
    assert (sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path / "volumes"))) == before


def test_a_new_volume_is_as_docker_makes_it(volumes: Volumes) -> None:
    """Anybody may pass, nobody but root may look; the content belongs to root and is open."""
    volume, is_new = volumes.create("data", labels={"a": "b"})
    assert is_new and not volume.anonymous and volume.labels == {"a": "b"} and volume.options is None
    assert stat.S_IMODE(volumes.directory("data").stat().st_mode) == 0o701
    assert stat.S_IMODE(volumes.mountpoint("data").stat().st_mode) == 0o755
    assert stat.S_IMODE(volumes.root.stat().st_mode) == 0o701


def test_create_is_idempotent(volumes: Volumes) -> None:
    """A second create returns the first volume, whatever else it asks for."""
    first, _ = volumes.create("data", labels={"a": "b"})
    assert volumes.create("data", labels={"c": "d"}, options={"type": "tmpfs", "device": "x"}) == (first, False)


def test_a_volume_without_a_name_is_anonymous(volumes: Volumes) -> None:
    """The engine names it and marks it as Docker does."""
    volume, _ = volumes.create("")
    assert len(volume.name) == 64 and volume.anonymous and volume.labels == {ANONYMOUS_LABEL: ""}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"foo": "1"}, 'invalid option: "foo"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"o": "bind"}, 'missing required option: "device"'),
        ({"device": "/x"}, 'missing required option: "type"'),
        ({"type": "none", "device": "relative", "o": "bind"}, "must be an absolute path"),
        ({"type": "../x", "device": "/x"}, "invalid mount options"),
    ],
)
def test_wrong_options(options: dict[str, str], text: str) -> None:
    """What the local driver doesn't know, or needs and isn't given, is refused with Docker's text."""
    with pytest.raises(InvalidArgument, match=text):
        parse_local_options("data", options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": "much"}, "invalid size: 'much'"),
        ({"size": "1m", "type": "tmpfs", "device": "tmpfs"}, "limits a directory of the engine's own"),
    ],
)
def test_wrong_sizes(options: dict[str, str], text: str) -> None:
    """What is no size, or no size of a directory of the engine's own."""
    with pytest.raises(InvalidArgument, match=text):
        parse_size("data", options)
    assert parse_size("data", {"size": "1.5k"}) == 1536 and parse_size("data", {"size": "0"}) == 0


def test_another_driver(volumes: Volumes) -> None:
    """There are no plugins; Docker's text says so."""
    with pytest.raises(NotFound, match=r'^create x1: error looking up volume plugin foo: plugin "foo" not found$'):
        volumes.create("x1", driver="foo")
    assert len(volumes) == 0 and set(os.listdir(volumes.root)) == {".removed", ".trash"}


def test_remove(volumes: Volumes) -> None:
    """One in use, or that a container is being made with, stays; a removed one is gone at once, its files later."""
    volumes.create("data")
    (volumes.mountpoint("data") / "file").write_text("x")
    with pytest.raises(Conflict, match=r"^remove data: volume is in use - \[a, b\]$"):
        volumes.remove("data", ["a", "b"])
    with volumes.held(["data"]), volumes.held(["data"]), pytest.raises(Conflict):
        volumes.remove("data")
    assert volumes.usage("data") == 1
    volumes.remove("data")
    assert not volumes.directory("data").exists() and volumes.get("data") is None
    volumes.empty_trash()
    assert os.listdir(volumes.root / ".trash") == []
    with pytest.raises(NotFound, match=r"^get data: no such volume$"):
        volumes.remove("data")


def test_what_is_stored_is_found_again(tmp_path: Path) -> None:
    """Another engine on the same root has the same volumes, in the order of their creation."""
    first = open_volumes(tmp_path)
    made = [first.create(name, options=options)[0] for name, options in (
        ("zz", None), ("aa", {"type": "nfs", "device": ":/srv", "o": "addr=10.0.0.1,rw"}),
    )]  # fmt: skip
    assert list(open_volumes(tmp_path)) == made
    assert made[1].mount == LocalMount(type="nfs", device=":/srv", options=("addr=10.0.0.1", "rw"))


def test_a_new_volume_shows_nothing_of_an_old_one(volumes: Volumes) -> None:
    """A directory that a failed removal left under the name is thrown away first."""
    (volumes.root / "data" / "_data").mkdir(parents=True)
    (volumes.root / "data" / "_data" / "secret").touch()
    volumes.create("data")
    assert os.listdir(volumes.mountpoint("data")) == []


def test_copy_up_takes_what_overlayfs_would_show(volumes: Volumes, tmp_path: Path) -> None:
    """Upper layers win, removed files don't come back; owners, modes, times, attributes, links, devices are kept."""
    low, top = layer(tmp_path, "low", kept="low", hidden="x", shadowed="low"), layer(tmp_path, "top", shadowed="top")
    os.mknod(top / "data/hidden", stat.S_IFCHR, 0)
    os.mkfifo(low / "data/pipe")
    os.mknod(low / "data/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (low / "data/link").symlink_to("/etc/passwd")
    os.link(low / "data/kept", low / "data/second")
    (low / "data/deep/er").mkdir(parents=True)
    (low / "data/deep/er/file").write_text("x")
    os.chown(low / "data/kept", 1000, 1001)
    os.chmod(low / "data/kept", 0o4750)
    os.setxattr(low / "data/kept", b"user.mark", b"v")
    os.setxattr(top / "data", b"trusted.overlay.opaque", b"x")
    os.chown(top / "data", 7, 8)
    os.chmod(top / "data", 0o2770)
    os.utime(low / "data/kept", ns=(10**18, 10**18))
    volumes.create("v1")
    with Stack([top, low]) as stack:
        assert volumes.fill("v1", stack, "/data")
        assert not volumes.fill("v1", stack, "/data"), "it isn't empty any more"
    data = volumes.mountpoint("v1")
    assert sorted(os.listdir(data)) == ["deep", "kept", "link", "null", "pipe", "second", "shadowed"]
    kept = (data / "kept").lstat()
    assert (kept.st_uid, kept.st_gid, stat.S_IMODE(kept.st_mode), kept.st_mtime_ns) == (1000, 1001, 0o4750, 10**18)
    assert os.getxattr(data / "kept", b"user.mark") == b"v"
    assert (data / "second").samefile(data / "kept") and (data / "shadowed").read_text() == "top"
    assert os.readlink(data / "link") == "/etc/passwd" and (data / "deep/er/file").read_text() == "x"
    assert (data / "null").lstat().st_rdev == os.makedev(1, 3) and stat.S_ISFIFO((data / "pipe").lstat().st_mode)
    root = data.stat()
    assert (root.st_uid, root.st_gid, stat.S_IMODE(root.st_mode)) == (7, 8, 0o2770)
    assert b"trusted.overlay.opaque" not in map(os.fsencode, os.listxattr(data))
    assert os.listdir(volumes.directory("v1")) == ["_data"]


def test_copy_up_of_an_empty_place_still_gives_its_owner(volumes: Volumes, tmp_path: Path) -> None:
    """A program that runs as its own user can write into a new volume at its empty directory."""
    low = layer(tmp_path, "low")
    os.chown(low / "data", 1000, 1000)
    volumes.create("v1")
    with Stack([low]) as stack:
        volumes.fill("v1", stack, "/data")
    assert volumes.mountpoint("v1").stat().st_uid == 1000


@pytest.mark.parametrize(
    "place", ["/../../../../../..{secret}", "/out", "/up", "/out/../../../../../../../..{secret}", "/rel/key"]
)
def test_cve_2022_23648_copy_up_reads_nothing_of_the_host(volumes: Volumes, tmp_path: Path, place: str) -> None:
    """CVE-2022-23648: a place that climbs or goes through a link is looked for within the image's layers only."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("hunter2")
    low = layer(tmp_path, "low")
    (low / "out").symlink_to(secret)
    (low / "up").symlink_to("../" * 20 + str(secret))
    (low / "rel").symlink_to("out")
    volumes.create("v1")
    with Stack([low]) as stack:
        assert not volumes.fill("v1", stack, place.format(secret=secret))
        (low / str(secret)[1:]).mkdir(parents=True)
        (low / str(secret)[1:] / "key").write_text("of the image")
        if "key" not in place:
            assert volumes.fill("v1", stack, place.format(secret=secret))
            assert (volumes.mountpoint("v1") / "key").read_text() == "of the image"


def test_a_loop_of_links_is_refused(volumes: Volumes, tmp_path: Path) -> None:
    """It costs no more than forty steps."""
    low = layer(tmp_path, "low")
    (low / "a").symlink_to("b")
    (low / "b").symlink_to("/a")
    volumes.create("v1")
    with Stack([low]) as stack, pytest.raises(InvalidArgument, match="too many levels of symbolic links"):
        volumes.fill("v1", stack, "/a")


def test_copy_up_into_a_bound_directory(volumes: Volumes, tmp_path: Path) -> None:
    """`type=none,o=bind`: an empty directory of the host is filled, one with files isn't touched."""
    place = tmp_path / "place"
    place.mkdir()
    volumes.create("v1", options={"type": "none", "o": "bind", "device": str(place)})
    with Stack([layer(tmp_path, "low", file="x")]) as stack:
        assert volumes.fill("v1", stack, "/data")
        assert (place / "file").read_text() == "x" and os.listdir(volumes.mountpoint("v1")) == []
        (place / "file").write_text("mine")
        assert not volumes.fill("v1", stack, "/data")
    assert (place / "file").read_text() == "mine"


def test_a_bound_directory_on_a_full_disk_is_as_it_was(volumes: Volumes, tmp_path: Path, unmounted: None) -> None:
    """What of the image's files fitted in is taken away again, and the directory's owner is its own."""
    place = tmp_path / "volumes" / "small" / "_data"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "small", place], check=True)
    volumes.create("v1", options={"type": "none", "o": "bind", "device": str(place)})
    low = layer(tmp_path, "low", **{f"f{n}": "x" * 20_000 for n in range(9)})
    (low / "data/deep").mkdir()
    os.chown(low / "data", 7, 7)
    with Stack([low]) as stack, pytest.raises(OSError, match="No space left"):
        volumes.fill("v1", stack, "/data")
    status = place.stat()
    assert os.listdir(place) == [] and (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o700)


def take(path: Path, keep: int) -> None:
    """Takes all blocks of a disk but for so many bytes."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass
    os.truncate(path, path.stat().st_size - keep)


@pytest.mark.parametrize("size", ["40m", "8m"])
def test_a_creation_that_a_full_disk_undid_can_be_repeated(tmp_path: Path, size: str) -> None:
    """The row fits, its directory doesn't, nor does taking the row back, with the reserve (40m) or without one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=64", "small", disk], check=True)
    try:
        database = Database(disk / "state.db")
        volumes = Volumes(disk / "volumes", database)
        for keep in range(0, 16 * 4096, 4096):
            (disk / "file").touch()
            taken = []
            with contextlib.suppress(OSError):
                while True:
                    taken.append(disk / str(len(taken)))
                    taken[-1].touch()
            take(disk / "file", keep)
            with pytest.raises((OSError, TareError), match=r"(?i)no space left"):
                volumes.create("v1")
            assert list(volumes) == []
            for path in (disk / "file", *taken):
                path.unlink(missing_ok=True)
            assert volumes.create("v1")[1]
            volumes.remove("v1")
            volumes.empty_trash()
        database.close()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def unmounted(tmp_path: Path) -> Iterator[None]:
    """Takes away what a failing test leaves mounted."""
    yield
    for path in tmp_path.glob("volumes/*/_data"):
        shared.unmount(path)


def test_a_tmpfs_is_mounted_once_and_goes_with_the_volume(volumes: Volumes, tmp_path: Path, unmounted: None) -> None:
    """Its options reach the kernel; a second mount is the first one; wrong options are the user's error."""
    volume, _ = volumes.create("v1", options={"type": "tmpfs", "device": "tmpfs", "o": "size=64k,mode=700,noexec"})
    assert volume.mount is not None and volume.mount.in_memory
    path = volumes.mountpoint("v1")
    assert shared.mount(path, volume.mount) and not shared.mount(path, volume.mount)
    status = os.statvfs(path)
    assert status.f_blocks * status.f_frsize == 64 << 10 and status.f_flag & os.ST_NOEXEC
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (path / "file").write_text("x")
    assert volumes.usage("v1") == 0
    volumes.remove("v1")
    assert str(path) not in Path("/proc/self/mounts").read_text(errors="surrogateescape")
    with pytest.raises(InvalidArgument, match="failed to mount local volume: mount tmpfs:"):
        shared.make(path, LocalMount(type="tmpfs", device="tmpfs", options=("nonsense=1",)))


def test_repair_takes_what_only_a_lost_container_had(tmp_path: Path) -> None:
    """An anonymous volume of a container that was never stored goes; a named one, and one that is used, stays."""
    volumes = open_volumes(tmp_path)
    lost = volumes.create("", pending="lost")[0].name
    kept = volumes.create("", pending="stored")[0].name
    shared_one = volumes.create("", pending="lost")[0].name
    volumes.create("named", pending="lost")
    (volumes.root / "stranger" / "_data").mkdir(parents=True)
    again = open_volumes(tmp_path)
    changed = again.repair(lambda container_id: container_id == "stored", {shared_one})
    assert {volume.name for volume in again} == {kept, shared_one, "named"} and len(changed) == 2, lost
    assert not (volumes.root / "stranger").exists()
    assert again.repair(lambda _: False, ()) == [], "what was settled isn't looked at again"


WHOLE = ["f0", "f1", "f2", "f3"]
OWNER = (1234, 0o40750)


def whole(directory: Path) -> bool:
    """Whether a volume has all of the files and the image's owner, or nothing and none."""
    status = directory.stat()
    found = sorted(os.listdir(directory)), (status.st_uid, status.st_mode)
    return found in ((WHOLE, OWNER), ([], (0, 0o40755)))


def story(root: Path) -> None:
    """A short life: a volume made, filled and removed, and one that stays."""
    volumes = open_volumes(root)
    with Stack([root / "low"]) as stack:
        volumes.create("stays")
        volumes.fill("stays", stack, "/data")
        volumes.create("goes")
        volumes.fill("goes", stack, "/data")
        volumes.remove("goes")
        volumes.empty_trash()


@pytest.mark.parametrize("action", ["raise", "full", "kill"])
@pytest.mark.parametrize("point", POINTS)
def test_a_crash_leaves_no_half_volume(tmp_path: Path, point: str, action: str) -> None:
    """Failing or dying at any passage of any step: each volume is empty or has all files, and the story can be told.

    After a failure that is so at once, also for who looks into the volume then; a death needs the next start.
    """
    passage = 0
    while True:
        passage += 1
        root = tmp_path / str(passage)
        place = layer(root, "low", **dict.fromkeys(WHOLE, "x")) / "data"
        os.chown(place, OWNER[0], 0)
        place.chmod(OWNER[1])
        child = os.fork()
        if child == 0:
            faults._name, faults._action, faults._left = point, action, passage
            try:
                story(root)
                os._exit(0)
            except (faults.InjectedFault, OSError, TareError):
                os._exit(1)
            finally:
                os._exit(2)
        status = os.waitpid(child, 0)[1]
        assert status in (0, 1 << 8, signal.SIGKILL)
        volumes = open_volumes(root)
        if action != "kill":
            assert all(whole(volumes.mountpoint(volume.name)) for volume in volumes)
        volumes.repair(lambda _: True, ())
        for volume in volumes:
            assert whole(volumes.mountpoint(volume.name)), volume.name
            assert os.listdir(volumes.directory(volume.name)) == ["_data"]
        assert {entry for entry in os.listdir(volumes.root) if entry[0] != "."} == {v.name for v in volumes}
        story(root)
        assert [volume.name for volume in open_volumes(root)] == ["stays"]
        assert os.listdir(volumes.root / ".trash") == []
        if status == 0:
            assert passage > 1, f"{point} is never passed"
            return
