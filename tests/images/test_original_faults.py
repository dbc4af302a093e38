"""A failure or a kill at every step with compressed layers and indexes: load, slim, drop, check, removal."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import archive_files as made
import pytest
from image_rooms import Rooms
from test_original_layers import NAME, other_gzip, saved
from test_store_check import check

from support import forked
from tare.images.archive_load import load
from tare.images.remove import remove
from tare.values.digest import digest_bytes

POINTS = (
    "images.index.content", "images.index.done", "storage.database.commit", "storage.fsck.repair",
    "storage.layer.rename", "storage.layer.row", "storage.original.drop", "storage.original.rename",
    "storage.original.row", "storage.original.slim",
)  # fmt: skip
ONE, TWO = made.layer(one="1" * 3000), made.layer(two="2")
CONFIG, ARM = made.config(ONE, TWO), made.config(ONE, architecture="arm64")
PACKED = [gzip.compress(ONE, mtime=0), gzip.compress(TWO, mtime=0)]
AMD_MANIFEST, ARM_MANIFEST = made.manifest(CONFIG, PACKED), made.manifest(ARM, PACKED[:1])
INDEX = made.index(
    made.named(ARM_MANIFEST, None, platform={"os": "linux", "architecture": "arm64"}),
    made.named(AMD_MANIFEST, None, platform={"os": "linux", "architecture": "amd64"}),
)
ENTRY = made.descriptor(INDEX, f"{made.OCI}index.v1+json", annotations={"io.containerd.image.name": NAME})
MULTI = made.layout([ENTRY], INDEX, AMD_MANIFEST, ARM_MANIFEST, CONFIG, ARM, *PACKED)
OTHER = [other_gzip(ONE), other_gzip(TWO)]
OTHER_MANIFEST = made.manifest(CONFIG, OTHER)
FIRST = made.archive(MULTI)
SECOND = made.archive(
    made.layout([made.named(OTHER_MANIFEST, "docker.io/library/b:1")], OTHER_MANIFEST, CONFIG, *OTHER)
)


def story(root: Path) -> None:
    """Images with an index and with compressed layers come, are slimmed, given up, damaged, repaired, removed."""
    rooms = Rooms(root)
    load(rooms.images, io.BytesIO(FIRST))
    rooms.layers.originals.slim()
    load(rooms.images, io.BytesIO(SECOND))
    rooms.layers.originals.slim()
    (rooms.layers.path(digest_bytes(TWO)) / "two").chmod(0o600)
    check(rooms, repair=True)
    rooms.layers.originals.drop_kept()
    for image in rooms.images.all():
        if image.repo_tags:
            remove(rooms.images, image.id, force=True)
    rooms.layers.empty_trash()
    rooms.close()


def run_with_fault(root: Path, point: str, passage: int, action: str) -> bool:
    """Whether the story got through in a forked child that fails at the passage."""
    return forked.end(forked.begin(point, passage, action, lambda: root, story))


def check_whole(root: Path) -> None:
    """What is named is whole, the damage that the story did aside; nothing lies about; the same load succeeds."""
    rooms = Rooms(root)
    rooms.layers.collect()
    rooms.layers.empty_trash()
    if rooms.layers.exists(digest_bytes(TWO)):
        (rooms.layers.path(digest_bytes(TWO)) / "two").chmod(0o644)
    found = [finding for finding in check(rooms) if "is marked" not in finding.problem]
    assert found == []
    for image in rooms.images.all():
        for diff_id in image.diff_ids:
            assert digest_bytes(b"".join(rooms.layers.reassemble(diff_id))) == diff_id
    check(rooms, repair=True)
    load(rooms.images, io.BytesIO(FIRST))
    out = saved(rooms, "a")
    assert out[f"blobs/sha256/{made.sha(INDEX)}"] == INDEX
    assert {name for name in MULTI if name.startswith("blobs/")} <= set(out)
    assert check(rooms) == []
    rooms.close()


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("point", POINTS)
def test_a_fault_with_compressed_layers(tmp_path: Path, point: str, action: str) -> None:
    """At passages of the point, until the story gets through or six have been tried."""
    passage, through = 0, False
    while not through and passage < 6:
        passage += 1
        root = tmp_path / str(passage)
        through = run_with_fault(root, point, passage, action)
        check_whole(root)
    assert passage > 1, "the story never passes this point"
