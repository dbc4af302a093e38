"""A disk that is full at any one step, or from any step on: the verb fails by the disk's name, and nothing is lost.

No list of points: each verb is run again and again in one store, with the first, second, … of all the fault points that
it passes failing as a system call on a full disk does, until it gets through. After each time the same rooms, without
a restart, must be whole by fsck, hold just what they did (or all of the verb's work), and have nothing left over.
TARE_SWEEP=all does it for every verb in both ways.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import archive_files as made
import pytest
from image_rooms import Rooms, small_tar
from test_original_faults import FIRST, SECOND
from test_store_check import check

from tare import faults
from tare.errors import ResourceExhausted
from tare.images import receiving, sending
from tare.images.archive_load import load
from tare.images.commit import CommitOptions, commit_snapshot
from tare.images.import_image import import_image
from tare.images.records import Image
from tare.images.reflog import undo
from tare.images.remove import remove
from tare.images.squash import SquashOptions, squash
from tare.images.tag import tag
from tare.storage.full_disk import disk_of
from tare.values.digest import digest_bytes
from tare.values.reference import parse_reference

CONFIGS = (made.layer(a="1"), made.layer(b="2"))
TWO_IMAGES = made.archive(
    made.docker_archive(
        (made.config(CONFIGS[0]), ["l:1"], [("aa", CONFIGS[0])]),
        (made.config(*CONFIGS), ["l:2"], [("aa", CONFIGS[0]), ("bb", CONFIGS[1])]),
    )
)


class Deed(NamedTuple):
    """act: the verb. undo: back to how it was, however far the verb came. resumed: who calls it repeats it first."""

    act: Callable[[Rooms], object]
    undo: Callable[[Rooms], object] = lambda rooms: None
    resumed: bool = False


def image(rooms: Rooms, name: str) -> Image:
    return next(one for one in rooms.images.all() if f"{name}:latest" in one.repo_tags)


def names(rooms: Rooms) -> set[str]:
    return {name for one in rooms.images.all() for name in one.repo_tags}


def without(*gone: str) -> Callable[[Rooms], object]:
    def act(rooms: Rooms) -> None:
        for name in gone:
            if name in names(rooms):
                remove(rooms.images, name)
        for one in rooms.images.all():
            if not one.repo_tags and not one.part_of and not rooms.images.children(one.id):
                remove(rooms.images, one.id)

    return act


def do_commit(rooms: Rooms) -> None:
    base = image(rooms, "base")
    options = CommitOptions(config=base.config, reference=parse_reference("committed"))
    commit_snapshot(rooms.images, rooms.snapshots, "s", base, options)


def do_squash(rooms: Rooms) -> None:
    squash(
        rooms.images, rooms.snapshots, None, image(rooms, "child"), SquashOptions(reference=parse_reference("squashed"))
    )


def do_receive(rooms: Rooms) -> None:
    receiving.receive(rooms.images, io.BytesIO(rooms.sent))  # type: ignore[attr-defined]


def not_received(rooms: Rooms) -> None:
    without("sent:latest")(rooms)
    with rooms.db.transaction() as tx:
        tx.run("DELETE FROM layer_roots WHERE holder LIKE 'received:%'")
    rooms.layers.collect()


def do_reset(rooms: Rooms) -> None:
    """What a checkout does with a container's directories."""
    with rooms.db.transaction() as tx:
        rooms.snapshots.begin_reset(tx, "s", image(rooms, "base").diff_ids)
    rooms.snapshots.finish_reset("s")


def do_remake(rooms: Rooms) -> None:
    remove(rooms.images, "other")
    rooms.layers.empty_trash()


def again(name: str) -> Callable[[Rooms], object]:
    def act(rooms: Rooms) -> None:
        if f"{name}:latest" not in names(rooms):
            rooms.make(name, name)

    return act


def prepare(rooms: Rooms) -> None:
    if "new" not in rooms.snapshots.ids():
        rooms.snapshots.prepare("new", image(rooms, "child").diff_ids)


def collect(rooms: Rooms) -> None:
    rooms.layers.add(io.BytesIO(small_tar("nobody's")))
    rooms.layers.collect()
    rooms.layers.empty_trash()


def slim(rooms: Rooms) -> None:
    rooms.layers.originals.drop_kept()
    load(rooms.images, io.BytesIO(SECOND))
    rooms.layers.originals.slim()


DEEDS = {
    "import": Deed(
        lambda rooms: import_image(rooms.images, io.BytesIO(small_tar("i")), reference=parse_reference("imported")),
        without("imported:latest"),
    ),
    "load": Deed(lambda rooms: load(rooms.images, io.BytesIO(TWO_IMAGES)), without("l:2", "l:1")),
    "load an index": Deed(lambda rooms: load(rooms.images, io.BytesIO(FIRST)), without("a:latest")),
    "slim": Deed(slim, without("b:1")),
    "receive": Deed(do_receive, not_received),
    "commit": Deed(do_commit, without("committed:latest")),
    "squash": Deed(do_squash, without("squashed:latest")),
    "tag": Deed(
        lambda rooms: tag(rooms.images, image(rooms, "base"), parse_reference("tagged")), without("tagged:latest")
    ),
    "undo a tag": Deed(lambda rooms: undo(rooms.images, parse_reference("moved"))),
    "remove": Deed(do_remake, again("other")),
    "create": Deed(prepare, lambda rooms: rooms.snapshots.remove("new")),
    "remove a container": Deed(lambda rooms: rooms.snapshots.remove("new"), prepare, resumed=True),
    "checkout": Deed(do_reset, resumed=True),
    "collect": Deed(collect, lambda rooms: rooms.layers.collect()),
}


CASES = [
    pytest.param(verb, lasts, id=f"{verb}, {'lasting' if lasts else 'once'}") for verb in DEEDS for lasts in (0, 1)
]
if os.environ.get("TARE_SWEEP") != "all":
    CASES = [case for case in CASES if case.values[1] or case.values[0] in ("load an index", "commit", "remove")]
    CASES = [case for case in CASES if case.id not in ("load an index, lasting", "slim, lasting")]


def prepared(root: Path) -> Rooms:
    rooms = Rooms(root / "other")
    rooms.make("sent", "sent")
    sent = io.BytesIO()
    sending.send(rooms.images, sending.offer(rooms.images, ["sent"]), (), sent.write)
    rooms.close()
    rooms = Rooms(root / "data")
    rooms.sent = sent.getvalue()  # type: ignore[attr-defined]
    for name in ("base", "other"):
        rooms.make(name, name)
    rooms.snapshots.prepare("s", image(rooms, "base").diff_ids)
    (rooms.snapshots.upper("s") / "file").write_text("changed")
    options = CommitOptions(config=image(rooms, "base").config, reference=parse_reference("child"))
    commit_snapshot(rooms.images, rooms.snapshots, "s", image(rooms, "base"), options)
    for name in ("base", "child"):
        tag(rooms.images, image(rooms, name), parse_reference("moved"))
    return rooms


class Full:
    """Stands in for `faults.point`: the disk is full at one passage of a point, or from there on."""

    def __init__(self, number: int, *, lasts: bool) -> None:
        self.left = number
        self.lasts = lasts
        self.hit: list[str] = []

    def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left == 0 or (self.lasts and self.left < 0):
            self.hit.append(name)
            faults.strike("full", name)


@contextmanager
def full_at(monkeypatch: pytest.MonkeyPatch, number: int, *, lasts: bool) -> Iterator[Full]:
    full = Full(number, lasts=lasts)
    with monkeypatch.context() as patch:
        patch.setattr(faults, "point", full)
        yield full


def check_whole(rooms: Rooms) -> None:
    """As it is, without a restart: fsck finds nothing, every layer has its digest, nothing lies about."""
    rooms.layers.collect()
    rooms.layers.empty_trash()
    rooms.snapshots.empty_trash()
    rooms.images.delete_leftovers()
    assert check(rooms) == []
    for one in rooms.images.all():
        for diff_id in one.diff_ids:
            assert digest_bytes(b"".join(rooms.layers.reassemble(diff_id))) == diff_id
    held = {diff_id for _, diff_ids in rooms.layers.holders() for diff_id in diff_ids}
    assert {layer.diff_id for layer in rooms.layers.all()} == held
    assert {f"sha256:{entry.name}" for entry in (rooms.root / "storage/layers").iterdir()} == held
    assert set(rooms.content.digests()) == rooms.images.held_documents()
    for directory in ("storage/staging", "storage/trash", "snapshots/.trash"):
        assert list((rooms.root / directory).iterdir()) == []
    assert {name for name in os.listdir(rooms.root / "snapshots") if not name.startswith(".")} == set(
        rooms.snapshots.ids()
    )


@pytest.mark.parametrize(("verb", "lasts"), CASES)
def test_full_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, lasts: int) -> None:
    """The error names the disk; what was there stays whole; the verb goes well as soon as there is room."""
    rooms, deed = prepared(tmp_path), DEEDS[verb]
    before, number, points = names(rooms), 0, set()
    disk = disk_of(rooms.root)
    while True:
        number += 1
        with full_at(monkeypatch, number, lasts=bool(lasts)) as full:
            try:
                deed.act(rooms)
            except ResourceExhausted as error:
                assert "no space left on device" in str(error), full.hit
                assert disk in str(error), full.hit
                assert full.hit
        if not full.hit:
            break
        points.update(full.hit)
        if verb != "remove":
            assert before <= names(rooms), full.hit
        try:
            if deed.resumed:
                deed.act(rooms)
            check_whole(rooms)
            deed.undo(rooms)
            assert names(rooms) == before
            deed.act(rooms)
            check_whole(rooms)
            deed.undo(rooms)
            check_whole(rooms)
        except Exception as error:
            raise AssertionError(f"after {number}: {full.hit}") from error
    assert points, "the verb never passes a point"
    rooms.close()
    rooms = Rooms(tmp_path / "data")
    check_whole(rooms)
    rooms.close()
