"""A failure or a kill at every step of a load: the store is whole, and the same load works afterwards."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import archive_files as made
import pytest
from image_rooms import Rooms

from support import forked
from tare.images.archive_load import load
from tare.values.digest import digest_bytes

POINTS = (
    "images.archive.layer", "images.load.checked", "images.record.content", "images.record.done",
    "storage.content.rename", "storage.content.write", "storage.database.commit", "storage.extract.finish",
    "storage.layer.added", "storage.layer.rename", "storage.layer.row", "storage.layer.stage", "storage.layer.sync",
)  # fmt: skip
ONE, TWO = made.layer(one="1"), made.layer(two="2")
FIRST, SECOND = made.config(ONE), made.config(ONE, TWO)
ARCHIVE = made.archive(
    made.docker_archive((FIRST, ["a:1"], [("aa", ONE)]), (SECOND, ["b:1"], [("aa", ONE), ("bb", TWO)]))
)


def check(rooms: Rooms) -> None:
    """Every image is whole, and nothing is there that no image has."""
    images = rooms.images.all()
    for image in images:
        assert image.repo_tags
        for diff_id in image.diff_ids:
            assert digest_bytes(b"".join(rooms.layers.reassemble(diff_id))) == diff_id
    rooms.layers.collect()
    rooms.layers.empty_trash()
    held = {diff_id for image in images for diff_id in image.diff_ids}
    assert {one.diff_id for one in rooms.layers.all()} == held
    assert {f"sha256:{entry.name}" for entry in (rooms.root / "storage/layers").iterdir()} == held
    documents = {digest for image in images for digest in (image.id, image.manifest_digest)}
    assert set(rooms.content.digests()) == documents
    for directory in ("storage/staging", "storage/trash"):
        assert not list((rooms.root / directory).iterdir())


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("point", POINTS)
def test_load_is_cut_short(tmp_path: Path, point: str, action: str) -> None:
    """At every passage of the point; then the load succeeds on the same data."""
    passage, through = 0, False
    while not through and passage < 9:
        passage += 1
        root = tmp_path / str(passage)
        child = forked.begin(
            point, passage, action, partial(Rooms, root), lambda rooms: load(rooms.images, io.BytesIO(ARCHIVE))
        )
        through = forked.end(child)
        rooms = Rooms(root)
        check(rooms)
        done = load(rooms.images, io.BytesIO(ARCHIVE))
        assert [one.image.repo_tags for one in done] == [("a:1",), ("b:1",)]
        check(rooms)
        rooms.close()
    assert passage > 1, "the load never passes this point"
