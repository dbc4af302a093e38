"""fsck of the rooms: each thing is broken first; it is found, named, and repaired without losing what is whole."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import archive_files as made
import pytest
from image_rooms import Rooms
from test_original_layers import other_gzip

from tare.errors import Internal
from tare.images.archive_load import load
from tare.images.fsck import check_images
from tare.images.records import Image
from tare.storage.fsck import Check, Finding, check_database, check_layers, check_roots
from tare.values.digest import digest_bytes

ONE = made.layer(one="1" * 5000, two="2")
CONFIG = made.config(ONE)


def check(rooms: Rooms, *, repair: bool = False, contents: bool = True) -> list[Finding]:
    run = Check(repair=repair, contents=contents)
    check_database(run, rooms.db)
    check_layers(run, rooms.layers)
    check_images(run, rooms.images)
    check_roots(run, rooms.layers, lambda holder: is_known(rooms, holder))
    return run.findings


def is_known(rooms: Rooms, holder: str) -> bool:
    return holder.startswith("received:") or rooms.images.find(holder.removeprefix("image:")) is not None


def load_one(rooms: Rooms, layer: bytes) -> Image:
    document = made.manifest(CONFIG, [layer])
    members = made.layout([made.named(document, "docker.io/library/a:1")], document, CONFIG, layer)
    (done,) = load(rooms.images, io.BytesIO(made.archive(members)))
    return done.image


@pytest.fixture
def image(rooms: Rooms) -> Image:
    return load_one(rooms, ONE)


def flip(path: Path, at: int) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def tree(rooms: Rooms, image: Image) -> Path:
    return rooms.layers.path(image.diff_ids[0])


def lose_root(rooms: Rooms, image: Image) -> None:
    with rooms.db.transaction() as tx:
        rooms.layers.drop_root(tx, f"image:{image.id}")


def strange_root(rooms: Rooms, image: Image) -> None:
    with rooms.db.transaction() as tx:
        rooms.layers.set_root(tx, "image:sha256:gone", image.diff_ids)


def document(rooms: Rooms, digest: str) -> Path:
    return rooms.root / "content" / "sha256" / digest[7:]


# What is broken: how, what is said of it, and whether it can be made good here.
BREAKS: dict[str, tuple[Callable[[Rooms, Image], object], str, bool]] = {
    "a bit of a file": (lambda r, i: flip(tree(r, i) / "one", 77), "archive now has the digest", False),
    "a file's end": (lambda r, i: os.truncate(tree(r, i) / "one", 9), "shorter than its recipe", False),
    "a file": (lambda r, i: (tree(r, i) / "one").unlink(), "No such file", False),
    "a file's mode": (lambda r, i: (tree(r, i) / "one").chmod(0o600), "has the mode 600, not 644", True),
    "a file's owner": (lambda r, i: os.chown(tree(r, i) / "one", 7, 0), "belongs to 7:0", True),
    "a file too many": (lambda r, i: (tree(r, i) / "evil").touch(), "evil: is not in its archive", True),
    "a layer": (lambda r, i: shutil.rmtree(tree(r, i).parent), "its tree and recipe.zst are missing", False),
    "a recipe": (lambda r, i: (tree(r, i).parent / "recipe.zst").unlink(), "its recipe.zst is missing", False),
    "a bit of a recipe": (lambda r, i: flip(tree(r, i).parent / "recipe.zst", 30), "", False),
    "a config": (lambda r, i: document(r, i.id).unlink(), "its configuration is lost", False),
    "a bit of a config": (lambda r, i: flip(document(r, i.id), 5), "is damaged", False),
    "a manifest": (lambda r, i: document(r, i.manifest_digest).unlink(), "its manifest is lost", True),
    "a bit of a manifest": (lambda r, i: flip(document(r, i.manifest_digest), 5), "is damaged", True),
    "a document too many": (lambda r, i: r.content.put(b"{}"), "is a document of no image", True),
    "what holds its layers": (lose_root, "does not hold its layers", True),
    "a holder of nothing": (strange_root, "is nothing that exists", True),
    "an orphaned directory": (lambda r, i: (tree(r, i).parents[1] / ("0" * 64)).mkdir(), "belongs to no layer", True),
    "a leftover": (lambda r, i: (r.root / "storage/staging/x").mkdir(), "nobody works on it", True),
    "a strange blob": (lambda r, i: (r.root / "storage/originals/x").touch(), "is recorded nowhere", True),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_is_found_and_repaired(rooms: Rooms, image: Image, what: str) -> None:
    """Looking changes nothing; a repair makes it good, or marks it; the image comes in again and all is well."""
    destroy, says, mendable = BREAKS[what]
    assert check(rooms) == []
    destroy(rooms, image)
    found = check(rooms)
    assert any(says in finding.problem for finding in found), found
    assert not any(finding.repaired for finding in found)
    assert check(rooms) == found
    repaired = check(rooms, repair=True)
    assert repaired
    if mendable:
        assert check(rooms) == []
    assert len(rooms.images.all()) == 1  # whatever it lacks, it isn't taken away
    again = load_one(rooms, ONE)
    assert again.id == image.id
    rooms.snapshots.prepare("s", again.diff_ids)
    assert b"".join(rooms.layers.reassemble(again.diff_ids[0])) == ONE
    check(rooms, repair=True)
    assert check(rooms) == []


@pytest.mark.parametrize("what", ["a bit of a file", "a file's end", "a file", "a layer", "a bit of a recipe"])
def test_a_marked_layer_says_so_when_it_is_used(rooms: Rooms, image: Image, what: str) -> None:
    BREAKS[what][0](rooms, image)
    check(rooms, repair=True)
    with pytest.raises(Internal, match=r"layer sha256:\w+ is damaged .*: load or pull its image again"):
        rooms.snapshots.prepare("s", image.diff_ids)
    assert rooms.snapshots.ids() == []


def test_a_layer_is_made_again_of_its_compressed_form(rooms: Rooms) -> None:
    """Where the compressed bytes are kept, a damaged layer needs nothing from outside."""
    image = load_one(rooms, other_gzip(ONE))
    flip(tree(rooms, image) / "one", 100)
    (finding,) = check(rooms, repair=True)
    assert finding.repaired
    assert finding.remedy == "it is made again of its compressed form"
    assert check(rooms) == []
    assert b"".join(rooms.layers.reassemble(image.diff_ids[0])) == ONE


def test_a_damaged_compressed_form_is_given_up(rooms: Rooms) -> None:
    """The layer holds the data: the image stays, and goes out with a plain layer."""
    image = load_one(rooms, other_gzip(ONE))
    flip(rooms.root / "storage" / "originals" / made.sha(other_gzip(ONE)), 700)
    (finding,) = check(rooms, repair=True)
    assert (finding.kind, finding.repaired) == ("original", True)
    assert check(rooms) == []
    assert rooms.images.find(image.id) is not None


def test_a_quick_look_reads_no_contents(rooms: Rooms, image: Image) -> None:
    """It finds what is missing, not what is wrong inside."""
    flip(tree(rooms, image) / "one", 77)
    assert check(rooms, contents=False) == []
    (tree(rooms, image).parent / "recipe.zst").unlink()
    assert [finding.subject for finding in check(rooms, contents=False)] == [image.diff_ids[0]]


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    """An index of the database that lacks rows is found, and made again of its table."""
    rooms = Rooms(tmp_path / "data")
    rooms.make("a", "1")
    rooms.make("b", "2")
    rooms.close()
    raw = sqlite3.connect(tmp_path / "data" / "state.db")
    raw.execute("PRAGMA writable_schema = ON")
    sql = raw.execute("SELECT sql FROM sqlite_master WHERE name = 'images_by_parent'").fetchone()[0]
    raw.execute("DELETE FROM sqlite_master WHERE name = 'images_by_parent'")
    raw.commit()
    raw.close()
    raw = sqlite3.connect(tmp_path / "data" / "state.db")
    raw.execute("CREATE INDEX images_by_parent ON images (parent_id) WHERE image_id = ''")
    raw.execute("PRAGMA writable_schema = ON")
    raw.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'images_by_parent'", (sql,))
    raw.commit()
    raw.close()
    rooms = Rooms(tmp_path / "data")
    found = [finding for finding in check(rooms, repair=True) if "index" in finding.problem]
    assert found
    assert all(finding.kind == "database" and finding.repaired for finding in found)
    assert not [finding for finding in check(rooms) if "index" in finding.problem]
    rooms.close()


def test_a_check_beside_loads_finds_nothing(rooms: Rooms) -> None:
    """While images come and go, half of anything is never taken for damage, and a repair takes nothing away."""
    failures: list[object] = []
    packed = gzip.compress(ONE)

    def work() -> None:
        try:
            for number in range(6):
                load_one(rooms, packed if number % 2 else ONE)
                rooms.make(f"x{number}", f"{number}")
                rooms.layers.collect()
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        failures += check(rooms, repair=True)
    for worker in workers:
        worker.join()
    assert failures == []
    assert digest_bytes(ONE) in {layer.diff_id for layer in rooms.layers.all()}
