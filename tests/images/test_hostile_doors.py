"""Every archive that attacks an extractor, at each door that takes layers: refused, nothing outside, nothing left."""

from __future__ import annotations

import gzip
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import archive_files as made
import pytest
import zstandard
from image_rooms import Rooms
from test_store_check import check

from tare.errors import InvalidArgument
from tare.images import receiving
from tare.images.archive_load import load
from tare.images.import_image import import_image
from tare.values.reference import parse_reference

sys.path.append(str(Path(__file__).parents[1] / "storage"))
import hostile_archives as hostile

GOOD = made.layer(good="good")
PACKED = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def as_import(rooms: Rooms, layer: bytes, packed: bytes) -> None:
    import_image(rooms.images, io.BytesIO(packed), reference=parse_reference("evil"))


def as_docker_archive(rooms: Rooms, layer: bytes, packed: bytes) -> None:
    """The bad layer lies between two good ones."""
    document = made.config(GOOD, layer, GOOD)
    layers: list[tuple[str, made.Member]] = [("aa", GOOD), ("bb", packed), ("cc", made.layer(more="x"))]
    load(rooms.images, io.BytesIO(made.archive(made.docker_archive((document, ["evil:1"], layers)))))


def layout(layer: bytes, packed: bytes) -> bytes:
    document = made.config(GOOD, layer)
    manifest = made.manifest(document, [GOOD, packed])
    return made.archive(
        made.layout([made.named(manifest, "docker.io/library/evil:1")], manifest, document, GOOD, packed)
    )


def as_layout(rooms: Rooms, layer: bytes, packed: bytes) -> None:
    load(rooms.images, io.BytesIO(layout(layer, packed)))


def as_sent(rooms: Rooms, layer: bytes, packed: bytes) -> None:
    """What another engine sends with `tare push HOST:IMAGE`, or gives to `fetch`."""
    receiving.receive(rooms.images, io.BytesIO(layout(layer, packed)))


def as_compressed_archive(rooms: Rooms, layer: bytes, packed: bytes) -> None:
    load(rooms.images, io.BytesIO(gzip.compress(layout(layer, packed), 1)))


DOORS: dict[str, Callable[[Rooms, bytes, bytes], None]] = {
    "import": as_import,
    "docker archive": as_docker_archive,
    "OCI layout": as_layout,
    "compressed archive": as_compressed_archive,
    "sent by an engine": as_sent,
}
NO_TAR = ("not_a_tar", "bad_checksum", "truncated_header")
"""Plain, the reader of an image archive takes these for documents: then that layer isn't there."""


CASES = [(door, compression) for door in DOORS for compression in PACKED]
if os.environ.get("TARE_SWEEP") != "all":
    CASES = [(door, "plain" if door == "import" else "gzip") for door in DOORS]


@pytest.mark.parametrize(("door", "compression"), CASES)
def test_refused_at_each_door(rooms: Rooms, tmp_path: Path, door: str, compression: str) -> None:
    """Each is an InvalidArgument that says what is wrong; the image that was there is whole, by fsck too."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    status = _unchanging(outside / "secret")
    present = rooms.make("present", "1")
    for name, (make, text) in hostile.REFUSED.items():
        layer = make(str(outside))
        with pytest.raises(InvalidArgument) as caught:
            DOORS[door](rooms, layer, PACKED[compression](layer))
        if not (name in NO_TAR and compression == "plain" and door != "import"):
            assert text in str(caught.value), name
        assert len(str(caught.value)) < 1200, name
        if door == "sent by an engine":  # good layers that came with it are kept a day, for the next try
            _let_go(rooms)
        rooms.layers.empty_trash()
        assert os.listdir(outside) == ["secret"], name
        assert (outside / "secret").read_text() == "secret"
        assert _unchanging(outside / "secret") == status, name
        assert [one.id for one in rooms.images.all()] == [present.id]
        assert [one.diff_id for one in rooms.layers.all()] == list(present.diff_ids), name
        assert set(rooms.content.digests()) == {present.id, present.manifest_digest}
        for place in ("storage/staging", "storage/trash", "storage/originals"):
            assert os.listdir(rooms.root / place) == [], name
    assert check(rooms) == []


def _let_go(rooms: Rooms) -> None:
    with rooms.db.transaction() as tx:
        tx.run("DELETE FROM layer_roots WHERE holder LIKE 'received:%'")
    rooms.layers.collect()


def _unchanging(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_mode, status.st_nlink, status.st_uid, status.st_mtime_ns, status.st_ctime_ns
