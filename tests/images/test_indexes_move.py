"""What a name stands for goes along with it: a tag of a tag, and a sending, bring the index for all platforms."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import archive_files as made
import pytest
from image_rooms import Rooms
from test_original_layers import ARM, CONFIG, INDEX, MULTI, loaded, saved
from test_store_check import check

from tare.images import receiving, sending
from tare.images.reflog import undo
from tare.images.remove import remove
from tare.images.tag import tag, tag_name
from tare.values.reference import parse_reference

BLOBS = {name: data for name, data in MULTI.items() if name.startswith("blobs/")}


def blobs_of(rooms: Rooms, name: str) -> dict[str, bytes]:
    return {path: data for path, data in saved(rooms, name).items() if path.startswith("blobs/")}


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Rooms]:
    """Another engine's rooms."""
    made = Rooms(tmp_path / "far")
    yield made
    made.close()


def sent(near: Rooms, far: Rooms, *names: str, only_new_names: bool = False) -> None:
    offered = sending.offer(near.images, names)
    without = set(receiving.missing(far.images, [(layer.digest, layer.diff_id) for layer in offered.layers]))
    stream = io.BytesIO()
    sending.send(near.images, offered, {layer.digest for layer in offered.layers} - without, stream.write)
    stream.seek(0)
    receiving.receive(far.images, stream, only_new_names=only_new_names)


@pytest.mark.parametrize("name", ["a", f"a@sha256:{made.sha(INDEX)}"])
def test_a_tag_of_a_name_stands_for_its_index(rooms: Rooms, name: str) -> None:
    """What is saved by the new name is the index with all its platforms, also when the old name is gone."""
    loaded(rooms, MULTI)
    tag_name(rooms.images, name, parse_reference("b"))
    assert rooms.images.target(parse_reference("b")) == f"sha256:{made.sha(INDEX)}"
    assert blobs_of(rooms, "b") == BLOBS
    remove(rooms.images, "a")
    assert blobs_of(rooms, "b") == BLOBS
    assert check(rooms) == []
    remove(rooms.images, "b")
    assert rooms.images.all() == []


def test_a_tag_of_an_id_stands_for_that_image(rooms: Rooms) -> None:
    """An id means one platform's image, here the one for ARM."""
    loaded(rooms, MULTI)
    for text in (f"sha256:{made.sha(ARM)}", made.sha(ARM)[:12]):
        tag_name(rooms.images, text, parse_reference("b"))
        assert rooms.images.target(parse_reference("b")) == ""
        assert f"blobs/sha256/{made.sha(INDEX)}" not in blobs_of(rooms, "b")
        assert f"blobs/sha256/{made.sha(CONFIG)}" not in blobs_of(rooms, "b")


def test_a_tag_that_moves_comes_back_to_its_index(rooms: Rooms) -> None:
    loaded(rooms, MULTI)
    other = rooms.make("other", "x")
    tag_name(rooms.images, "a", parse_reference("b"))
    tag(rooms.images, other, parse_reference("b"))
    assert rooms.images.target(parse_reference("b")) == ""
    undo(rooms.images, parse_reference("b"))
    assert blobs_of(rooms, "b") == BLOBS


def test_a_sending_brings_the_index(rooms: Rooms, far: Rooms) -> None:
    """All platforms, their manifests, what is attached and the name, and again nothing the second time."""
    loaded(rooms, MULTI)
    tag_name(rooms.images, "a", parse_reference("b"))
    sent(rooms, far, "a", "b")
    for name in ("a", "b"):
        assert far.images.target(parse_reference(name)) == f"sha256:{made.sha(INDEX)}"
        assert blobs_of(far, name) == BLOBS
    sent(rooms, far, "a", "b")
    assert check(far) == []
    remove(far.images, "a")
    remove(far.images, "b")
    assert far.images.all() == []
    assert not far.layers.holders()


def test_a_sending_of_an_index_keeps_names_that_are_taken(rooms: Rooms, far: Rooms) -> None:
    """only_new_names: a name that another image has there stays with it; without, it moves, and the reflog knows."""
    loaded(rooms, MULTI)
    there = far.make("a", "mine")
    sent(rooms, far, "a", only_new_names=True)
    assert far.images.referred(parse_reference("a:latest")) == there.id
    assert far.images.find(f"sha256:{made.sha(CONFIG)}") is not None
    sent(rooms, far, "a")
    assert blobs_of(far, "a") == BLOBS
    undo(far.images, parse_reference("a"))
    assert far.images.referred(parse_reference("a:latest")) == there.id


def test_the_reflog_of_an_index_goes_along(rooms: Rooms, far: Rooms) -> None:
    """Where the name was before, as for an image of one platform."""
    rooms.make("a", "before")
    loaded(rooms, MULTI)
    sent(rooms, far, "a")
    pick = "SELECT name, suffix, old_id, new_id, time_ns FROM tag_moves WHERE name LIKE '%/a' ORDER BY number"
    assert [tuple(row) for row in far.db.all(pick)] == [tuple(row) for row in rooms.db.all(pick)]
