"""Layers: idempotent, kept while held, collected when not, reassembled bit for bit, repaired after anything."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from pathlib import Path

import hostile_archives as hostile
import pytest
from engine_store import Store

from tare import errors
from tare.storage.database import Database
from tare.storage.layers import Layers


def archive(content: bytes = b"hello") -> io.BytesIO:
    return io.BytesIO(hostile.build(hostile.directory("d"), hostile.file("d/f", content)))


def test_adding_twice_is_one_layer(store: Store) -> None:
    """The second time costs a read; nothing is left of it."""
    first, second = store.layers.add(archive()), store.layers.add(archive())
    assert first == second
    assert len(store.layers.all()) == 1
    assert store.leftovers() == []


def test_sizes(store: Store) -> None:
    """size_bytes counts files once; tar_bytes is the stream's length."""
    data = hostile.build(hostile.file("a", b"12345"), hostile.hard_link("b", "a"), hostile.file("c", b"6"))
    layer = store.layers.add(io.BytesIO(data))
    assert (layer.size_bytes, layer.tar_bytes) == (6, len(data))


def test_trailing_bytes_are_part_of_the_layer(store: Store) -> None:
    """What follows the archive's end counts for the digest and comes back."""
    data = archive().getvalue() + b"trailing garbage" * 100
    layer = store.layers.add(io.BytesIO(data))
    assert layer.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert b"".join(store.layers.reassemble(layer.diff_id)) == data


def test_no_second_copy_of_data(store: Store) -> None:
    """A layer takes its files and a small recipe."""
    content = os.urandom(4 << 20)
    layer = store.layers.add(archive(content))
    place = store.layers.path(layer.diff_id).parent
    assert sum(path.lstat().st_size for path in place.iterdir() if path.is_file()) < 4096
    assert sorted(path.name for path in place.iterdir()) == ["recipe.zst", "tree"]


def test_data_roots_are_private(store: Store) -> None:
    """No unprivileged user reaches an image's setuid files (CVE-2021-41091)."""
    layer = store.layers.add(archive())
    for directory in (store.root / "storage", store.root / "storage/layers", store.layers.path(layer.diff_id).parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "digest", ["sha256:../../x", "sha256:" + "A" * 64, "../x", "", "sha256:" + "0" * 63, "sha512:" + "0" * 64]
)
def test_malformed_digests_never_become_paths(store: Store, digest: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="invalid digest"):
        store.layers.path(digest)


def test_unheld_layers_are_collected(store: Store) -> None:
    """Roots, snapshots and leases hold; what none of them names goes, with its files, if need be as a lease ends."""
    rooted, leased, stacked, loose = (store.layers.add(archive(bytes([n]))) for n in range(4))
    with store.db.transaction() as tx:
        store.layers.set_root(tx, "image:x", [rooted.diff_id])
    store.snapshots.prepare("s", [stacked.diff_id])
    with store.layers.lease([leased.diff_id]):
        assert [layer.diff_id for layer in store.layers.collect()] == [loose.diff_id]
    assert not store.layers.exists(leased.diff_id)
    store.snapshots.remove("s")
    with store.db.transaction() as tx:
        store.layers.drop_root(tx, "image:x")
    assert {layer.diff_id for layer in store.layers.collect()} == {rooted.diff_id, stacked.diff_id}
    assert store.layers.empty_trash() > 0
    store.snapshots.empty_trash()
    assert store.leftovers() == []
    assert list((store.root / "storage/layers").iterdir()) == []


def test_a_lease_on_a_lost_layer_is_refused(store: Store) -> None:
    with pytest.raises(errors.NotFound), store.layers.lease(["sha256:" + "0" * 64]):
        pass


def test_concurrent_add_and_collect(store: Store) -> None:
    """However additions with leases and collections interleave, a leased layer stays whole."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def collect() -> None:
        while not stop.is_set():
            store.layers.collect()
            store.layers.empty_trash()

    def add(number: int) -> None:
        try:
            for _ in range(15):
                with store.layers.lease() as lease:
                    layer = store.layers.add(archive(bytes([number % 2])), lease=lease)
                    assert (store.layers.path(layer.diff_id) / "d/f").read_bytes() == bytes([number % 2])
                    assert store.layers.get(layer.diff_id) == layer
        except BaseException as error:
            failures.append(error)

    collector = threading.Thread(target=collect)
    adders = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in (collector, *adders):
        thread.start()
    for thread in adders:
        thread.join(60)
    stop.set()
    collector.join(60)
    assert failures == []
    store.layers.collect()
    store.layers.empty_trash()
    assert store.leftovers() == []


def test_repair_brings_rows_and_directories_together(tmp_path: Path) -> None:
    """Staging is dropped, an unrecorded directory is dropped, a row without its directory is forgotten."""
    db = Database(tmp_path / "db")
    layers = Layers(tmp_path / "storage", db)
    kept, lost = layers.add(archive(b"kept")), layers.add(archive(b"lost"))
    layers.path(lost.diff_id).parent.rename(tmp_path / "storage/layers" / ("0" * 64))
    (tmp_path / "storage/staging/half").mkdir()
    changed = Layers(tmp_path / "storage", db).repair()
    assert changed == []  # opening already repaired
    assert layers.all() == [kept]
    assert [path.name for path in (tmp_path / "storage/layers").iterdir()] == [kept.diff_id[7:]]
    layers.empty_trash()
    assert list((tmp_path / "storage/trash").iterdir()) == []
    db.close()


def test_trash_of_any_depth_is_emptied(store: Store) -> None:
    """Thousands of directories in each other cost neither stack nor descriptors."""
    deep = store.root / "deep"
    deep.mkdir()
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    store.layers.trash.throw(deep)
    assert store.layers.empty_trash() >= 3000
    assert store.leftovers() == []
