"""A full disk at every step: the error names the disk, what was whole stays, nothing is left, removing still works."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import archive_files as made
import pytest
from image_rooms import Rooms
from test_original_layers import other_gzip
from test_store_check import check

from tare.errors import ResourceExhausted
from tare.images.archive_load import load
from tare.images.commit import CommitOptions, commit_snapshot
from tare.images.import_image import import_image
from tare.images.remove import remove
from tare.images.tag import tag
from tare.storage import full_disk
from tare.values.digest import digest_bytes
from tare.values.reference import parse_reference

STEP_BYTES = 20 << 10
MOST_STEPS = 60
NEW = made.layer(new="new" * 20_000, other="x")
CONFIG = made.config(NEW)
PACKED = other_gzip(NEW)
MANIFEST = made.manifest(CONFIG, [PACKED])
ARCHIVE = made.archive(made.layout([made.named(MANIFEST, "docker.io/library/loaded:latest")], MANIFEST, CONFIG, PACKED))


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    point = tmp_path / "disk"
    point.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tare-test", str(point)]
    else:
        image = tmp_path / "disk.img"
        with image.open("wb") as file:
            file.truncate(28 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "1024", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(point)]
    subprocess.run(command, check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


def fill(disk: Path, left_bytes: int) -> Path:
    """Takes all but so much of the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = full_disk.free_bytes(disk) - left_bytes
        while size > 0:
            try:
                size -= file.write(bytes(min(size, 1 << 16)))
            except OSError:
                break
        os.fsync(file.fileno())
    return ballast


def do_import(rooms: Rooms) -> None:
    import_image(rooms.images, io.BytesIO(NEW), reference=parse_reference("imported"))


def do_load(rooms: Rooms) -> None:
    load(rooms.images, io.BytesIO(ARCHIVE))


def do_commit(rooms: Rooms) -> None:
    image = next(one for one in rooms.images.all() if one.repo_tags == ("base:latest",))
    options = CommitOptions(config=image.config, reference=parse_reference("committed"))
    commit_snapshot(rooms.images, rooms.snapshots, "s", image, options)


def do_tag(rooms: Rooms) -> None:
    image = next(one for one in rooms.images.all() if one.repo_tags == ("base:latest",))
    tag(rooms.images, image, parse_reference("tagged"))


WRITES: dict[str, tuple[str, Callable[[Rooms], None]]] = {
    "import": ("imported:latest", do_import),
    "load": ("loaded:latest", do_load),
    "commit": ("committed:latest", do_commit),
    "tag": ("tagged:latest", do_tag),
}


def names(rooms: Rooms) -> set[str]:
    return {name for image in rooms.images.all() for name in image.repo_tags}


def check_whole(rooms: Rooms) -> None:
    rooms.layers.collect()
    rooms.layers.empty_trash()
    rooms.snapshots.empty_trash()
    assert check(rooms) == []
    for image in rooms.images.all():
        for diff_id in image.diff_ids:
            assert digest_bytes(b"".join(rooms.layers.reassemble(diff_id))) == diff_id
    held = {diff_id for image in rooms.images.all() for diff_id in image.diff_ids}
    assert {layer.diff_id for layer in rooms.layers.all()} == held
    for directory in ("storage/staging", "storage/trash"):
        assert not list((rooms.root / directory).iterdir())


@pytest.mark.parametrize("verb", WRITES)
def test_writing_to_a_full_disk(disk: Path, verb: str) -> None:
    """With one block more free each time until it succeeds: the verb fails as a whole, by the disk's name."""
    name, write = WRITES[verb]
    rooms = Rooms(disk / "data")
    rooms.make("base", "base")
    rooms.snapshots.prepare("s", rooms.images.all()[0].diff_ids)
    (rooms.snapshots.upper("s") / "changed").write_bytes(b"changed" * 10_000)
    refused = 0
    for step in range(MOST_STEPS):
        ballast = fill(disk, step * STEP_BYTES)
        try:
            write(rooms)
            done = True
        except ResourceExhausted as error:
            assert "no space left on device" in str(error)
            assert f" on {disk}" in str(error)
            refused, done = refused + 1, False
        finally:
            ballast.unlink()
        assert (name in names(rooms)) == done
        assert "base:latest" in names(rooms)
        check_whole(rooms)
        if done:
            break
    assert done, "it never succeeded"
    assert refused or verb == "tag", "the disk was never full"  # the log of the database has room for a tag
    rooms.close()
    rooms = Rooms(disk / "data")
    assert {name, "base:latest"} <= names(rooms)
    check_whole(rooms)
    rooms.close()


def test_removing_from_a_full_disk(disk: Path) -> None:
    """Not a byte is left: images and snapshots are removed all the same, and give their space back."""
    rooms = Rooms(disk / "data")
    rooms.make("base", "base")
    do_load(rooms)
    rooms.snapshots.prepare("s", rooms.images.all()[0].diff_ids)
    ballast = fill(disk, 0)
    rooms.snapshots.remove("s")
    remove(rooms.images, "loaded")
    rooms.layers.collect()
    rooms.layers.empty_trash()
    rooms.snapshots.empty_trash()
    assert names(rooms) == {"base:latest"}
    ballast.unlink()
    check_whole(rooms)
    assert (disk / "data" / full_disk.RESERVE).exists()
    rooms.close()
