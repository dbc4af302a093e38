"""A failure or a kill at every step of import, commit, tag, run and removal: what was acknowledged is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from image_rooms import Rooms

from support import forked
from tare.images.commit import CommitOptions, commit_snapshot
from tare.images.remove import remove
from tare.images.tag import tag
from tare.values.digest import digest_bytes
from tare.values.reference import parse_reference

POINTS = (
    "images.record.content", "images.record.done", "images.remove.row", "images.remove.untag", "images.tag",
    "storage.commit.finish", "storage.content.delete", "storage.content.rename", "storage.content.write",
    "storage.database.commit", "storage.database.migrate", "storage.extract.finish", "storage.layer.added",
    "storage.layer.collect", "storage.layer.rename", "storage.layer.row", "storage.layer.stage", "storage.layer.sync",
    "storage.snapshot.directories", "storage.snapshot.remove", "storage.snapshot.row", "storage.trash.delete",
    "storage.trash.throw",
)  # fmt: skip

Report = Callable[[str], object]


def story(root: Path, report: Report) -> None:
    """A short life of an engine; reports each verb once it is acknowledged."""
    rooms = Rooms(root)
    for name in ("one", "two"):
        rooms.make(name, name)
        report(f"+{name}")
    one = next(image for image in rooms.images.all() if image.repo_tags == ("one:latest",))
    prepared = rooms.snapshots.prepare("s", one.diff_ids)
    assert prepared.upper
    (Path(prepared.upper) / "new").write_text("new")
    options = CommitOptions(config=one.config, reference=parse_reference("three"))
    three = commit_snapshot(rooms.images, rooms.snapshots, "s", one, options)
    report("+three")
    tag(rooms.images, three, parse_reference("four"))
    report("+four")
    rooms.snapshots.remove("s")
    report("-two?")
    remove(rooms.images, "two")
    report("-two")
    report("-three?")
    remove(rooms.images, "three")
    report("-three")
    rooms.layers.empty_trash()
    rooms.snapshots.empty_trash()
    rooms.close()


def run_with_fault(root: Path, point: str, passage: int, action: str) -> tuple[list[str], bool]:
    """Runs the story in a forked child that fails at the passage; (what it acknowledged, whether it got through)."""
    reader, writer = os.pipe()

    def tell(verb: str) -> None:
        os.write(writer, f"{verb}\n".encode())

    child = forked.begin(point, passage, action, lambda: root, lambda place: story(place, tell))
    os.close(writer)
    with open(reader) as lines:
        acknowledged = lines.read().split()
    return acknowledged, forked.end(child)


def check(root: Path, acknowledged: list[str]) -> None:
    """Opens what is left: acknowledged names are there (or gone), every image is whole, nothing is lying about."""
    rooms = Rooms(root)
    names = {name.removesuffix(":latest") for image in rooms.images.all() for name in image.repo_tags}
    wanted = {verb[1:] for verb in acknowledged if verb.startswith("+")}
    gone = {verb[1:] for verb in acknowledged if verb.startswith("-") and not verb.endswith("?")}
    perhaps = {verb[1:-1] for verb in acknowledged if verb.endswith("?")} - gone
    assert wanted - gone - perhaps <= names
    assert not gone & names
    for image in rooms.images.all():
        rooms.content.get(image.id)
        rooms.content.get(image.manifest_digest)
        for diff_id in image.diff_ids:
            assert digest_bytes(b"".join(rooms.layers.reassemble(diff_id))) == diff_id
    for snapshot_id in rooms.snapshots.ids():
        prepared = rooms.snapshots.root_filesystem(snapshot_id)
        assert prepared.upper and Path(prepared.upper).is_dir()
        rooms.snapshots.changes(snapshot_id)
        rooms.snapshots.remove(snapshot_id)
    rooms.layers.collect()
    rooms.layers.empty_trash()
    rooms.snapshots.empty_trash()
    referred = {diff_id[7:] for image in rooms.images.all() for diff_id in image.diff_ids}
    assert {entry.name for entry in (root / "storage/layers").iterdir()} == referred
    documents = {digest for image in rooms.images.all() for digest in (image.id, image.manifest_digest)}
    assert set(rooms.content.digests()) == documents
    for directory in ("storage/staging", "storage/trash", "snapshots/.trash"):
        assert list((root / directory).iterdir()) == []
    assert [entry.name for entry in (root / "snapshots").iterdir() if not entry.name.startswith(".")] == []
    assert [entry.name for entry in (root / "content/sha256").iterdir() if entry.name.startswith(".")] == []
    rooms.close()


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("point", POINTS)
def test_fault(tmp_path: Path, point: str, action: str) -> None:
    """At every passage of the point; afterwards the whole story succeeds on the same data."""
    passage = 0
    through = False
    while not through and passage < 12:
        passage += 1
        root = tmp_path / str(passage)
        acknowledged, through = run_with_fault(root, point, passage, action)
        check(root, acknowledged)
    assert passage > 1, "the story never passes this point"
    story(tmp_path / "1", lambda verb: None)
    check(tmp_path / "1", ["+four"])
