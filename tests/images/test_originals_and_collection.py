"""An image goes while its compressed layers are looked at or saved: they stay until that is over, then they go."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import archive_files as made
import pytest
from image_rooms import Rooms
from test_original_layers import deflate, prose
from test_store_check import check

from tare.images.archive_load import load
from tare.images.archive_save import choose, save
from tare.images.remove import remove
from tare.values.digest import digest_bytes

FILES = made.archive({f"f{number}": prose(number, 400_000) for number in range(4)})
PACKED = deflate(6)(FILES)
CONFIG = made.config(FILES)
MANIFEST = made.manifest(CONFIG, [PACKED])
ARCHIVE = made.archive(made.layout([made.named(MANIFEST, "docker.io/library/a:1")], MANIFEST, CONFIG, PACKED))
DIGEST = digest_bytes(PACKED)


def removing_in_the_middle(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on the image is removed, and its layers collected and deleted, when the first bytes have been read."""
    tar_of, done = rooms.layers.originals._tar_of, []

    def interrupted(diff_id: str) -> Iterator[bytes]:
        for number, chunk in enumerate(tar_of(diff_id)):
            yield chunk
            if number == 0 and not done:
                done.append(number)
                remove(rooms.images, "a:1")
                rooms.layers.empty_trash()

    monkeypatch.setattr(rooms.layers.originals, "_tar_of", interrupted)
    return done


def slim(rooms: Rooms) -> object:
    return rooms.layers.originals.slim()


def has(rooms: Rooms) -> object:
    return rooms.layers.originals.has(DIGEST)


def of_layer(rooms: Rooms) -> object:
    return rooms.layers.originals.of(digest_bytes(FILES))


@pytest.mark.parametrize("look", [slim, has, of_layer])
def test_an_image_goes_while_its_original_is_looked_at(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, look: Callable[[Rooms], object]
) -> None:
    """Afterwards nothing of it is left; and the same image, when it comes again, is kept as it came."""
    load(rooms.images, io.BytesIO(ARCHIVE))
    if look is not slim:  # a way that was found with another library is checked anew
        rooms.layers.originals.slim()
        with rooms.db.transaction() as tx:
            assert tx.run('UPDATE originals SET way = replace(way, \'"library":"\', \'"library":"old \')') == 1
    done = removing_in_the_middle(rooms, monkeypatch)
    look(rooms)
    assert done
    rooms.layers.collect()
    rooms.layers.empty_trash()
    assert rooms.layers.all() == [] and rooms.layers.originals.all() == []
    assert check(rooms) == []
    assert list((rooms.root / "storage/layers").iterdir()) == []
    load(rooms.images, io.BytesIO(ARCHIVE))
    assert rooms.layers.originals.has(DIGEST)
    assert b"".join(rooms.layers.originals.open(DIGEST)) == PACKED


def test_an_image_goes_while_it_is_saved(rooms: Rooms) -> None:
    """The archive is whole; the end of the saving takes the layers that nothing else holds any more."""
    load(rooms.images, io.BytesIO(ARCHIVE))
    out = io.BytesIO()

    def write(data: bytes) -> None:
        if not out.tell():
            remove(rooms.images, "a:1")
            assert [one.diff_id for one in rooms.layers.all()] == [digest_bytes(FILES)]
        out.write(data)

    save(rooms.images, choose(rooms.images, ["a:1"]), write)
    assert rooms.layers.all() == []
    assert rooms.layers.originals.all() == []
    rooms.layers.empty_trash()
    assert check(rooms) == []
    assert load(rooms.images, io.BytesIO(out.getvalue()))[0].image.repo_tags == ("a:1",)


def test_a_search_gives_way_to_a_removal(rooms: Rooms) -> None:
    """It ends when nothing but itself keeps the layer, so that the room comes back."""
    load(rooms.images, io.BytesIO(ARCHIVE))
    originals, asked = rooms.layers.originals, []

    def stopped() -> bool:
        if originals.looked_at and rooms.images.all():
            remove(rooms.images, "a:1")
        asked.append(originals.looked_at in rooms.layers.only_leased)
        return asked[-1]

    assert originals.slim(stopped) == 0
    assert True in asked
    assert rooms.layers.all() == [] and originals.all() == []
    rooms.layers.empty_trash()
    assert check(rooms) == []
