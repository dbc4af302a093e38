"""The layers of one archive come in several at a time: in order for whoever asks, bounded, and nothing stays behind."""

from __future__ import annotations

import gzip
import io
import threading

import archive_files as made
import pytest
from image_rooms import Rooms

from tare.errors import InvalidArgument
from tare.images.archive_layers import AHEAD_BYTES, Arriving
from tare.images.archive_load import load
from tare.storage.decompress import Readable
from tare.storage.layers import Blob, Layer

DEADLINE_S = 80
MB = 1 << 20


def blob(number: int) -> Blob:
    layer = Layer(diff_id=f"sha256:{number:064x}", size_bytes=0, tar_bytes=0)
    return Blob(layer=layer, digest=layer.diff_id, size_bytes=0, compression="none", original=True)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tare-")]


def read_away(stream: Readable) -> int:
    total = 0
    while data := stream.read(MB):
        total += len(data)
    return total


def test_the_next_layer_comes_in_while_one_is_stored() -> None:
    """The first is only done once the second is there, and is heard of first."""
    second = threading.Event()
    heard: list[int] = []

    def store_first(stream: Readable) -> Blob:
        read_away(stream)
        assert second.wait(DEADLINE_S)
        return blob(1)

    def store_second(stream: Readable) -> Blob:
        second.set()
        read_away(stream)
        return blob(2)

    arriving = Arriving(at_once=2)
    for number, store in ((1, store_first), (2, store_second)):
        chunks = iter([b"a", b"b"])
        arriving.take(lambda chunks=chunks: next(chunks, b""), store, lambda _, number=number: heard.append(number))
    arriving.settle()
    assert heard == [1, 2]
    assert threads() == []


def test_a_slow_disk_holds_the_reader_back() -> None:
    """Not more than the bound is read of what nobody has taken."""
    read_mb = 0
    at_bound = threading.Event()
    held: list[int] = []

    def read() -> bytes:
        nonlocal read_mb
        if read_mb == 3 * AHEAD_BYTES // MB:
            return b""
        read_mb += 1
        if read_mb > AHEAD_BYTES // MB:
            at_bound.set()
        return bytes(MB)

    def store(stream: Readable) -> Blob:
        assert at_bound.wait(DEADLINE_S)
        held.append(read_mb)
        assert read_away(stream) == 3 * AHEAD_BYTES
        return blob(1)

    arriving = Arriving(at_once=2)
    arriving.take(read, store, lambda _: None)
    arriving.settle()
    assert held[0] <= AHEAD_BYTES // MB + 1


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_first_wrong_layer_is_named(rooms: Rooms, pack: object) -> None:
    """Whatever else is wrong behind it; nothing stays of those before and after."""
    assert callable(pack)
    good = [made.layer(**{f"f{number}": "x" * 3000}) for number in range(6)]
    wrong = good[3][: 512 + 3072] + b"\1" * 512 + bytes(1024)
    layers = [*good[:3], wrong, *good[4:]]
    config = made.config(*layers)
    members = made.docker_archive((config, ["a:1"], [(f"{n}", pack(one)) for n, one in enumerate(layers)]))
    whole = made.archive(members)
    for archive in (whole, whole[: len(whole) - 1536] + b"\2" * 512):
        with pytest.raises(InvalidArgument, match=r'layer "3/layer\.tar"'):
            load(rooms.images, io.BytesIO(archive))
        assert threads() == []
        assert rooms.layers.all() == []
        rooms.layers.empty_trash()
        assert not list((rooms.root / "storage/staging").iterdir())
        assert not list((rooms.root / "storage/originals").iterdir())


def test_an_archive_that_ends_in_a_layer_leaves_nothing(rooms: Rooms) -> None:
    layers = [made.layer(**{f"f{number}": "x" * 300_000}) for number in range(4)]
    members = made.docker_archive((made.config(*layers), ["a:1"], [(f"{n}", one) for n, one in enumerate(layers)]))
    archive = made.archive(members)
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        load(rooms.images, io.BytesIO(archive[:700_000]))
    assert threads() == []
    assert rooms.layers.all() == []
    assert not list((rooms.root / "storage/staging").iterdir())


def test_equal_layers_at_once_are_one(rooms: Rooms) -> None:
    """The same layer under two names is stored once."""
    one = made.layer(a="1" * 100_000)
    config = made.config(one, one)
    members = made.docker_archive((config, ["a:1"], [("x", one), ("y", one)]))
    (loaded,) = load(rooms.images, io.BytesIO(made.archive(members)))
    assert len(rooms.layers.all()) == 1
    assert loaded.image.diff_ids[0] == loaded.image.diff_ids[1]
