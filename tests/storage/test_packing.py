"""Packing: older versions of a large file cost what changed, and are whole whenever somebody asks for them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_store import Store
from test_snapshots import in_mount

from tare import errors
from tare.storage.chunks.check import PackUsage, check_packing, pack_usage
from tare.storage.chunks.maps import BASE, ZEROS, Entry, compose
from tare.storage.chunks.tidy import note, note_everything, tidy
from tare.storage.compare import compare
from tare.storage.layers import Layers
from tare.values.digest import digest_bytes

MIB = 1 << 20
SIZE = 4 * MIB
PAGE = 4096


@pytest.fixture(autouse=True)
def whole(store: Store) -> Iterator[None]:
    """After each test, what is packed can be had."""
    yield
    assert check_packing(store.layers.packing) == []


class Versions:
    """Commits of one growing container: a large file of which some pages change each time."""

    def __init__(self, store: Store, *, stacked: bool = False, size: int = SIZE, name: str = "db/data") -> None:
        self.store = store
        self.stacked = stacked
        self.name = name
        self.data = bytearray(os.urandom(size))
        self.contents: list[bytes] = []
        self.layers: list[str] = []

    def change(self, pages: int = 1) -> None:
        for _ in range(pages):
            number = int.from_bytes(os.urandom(4)) % (len(self.data) // PAGE)
            self.data[number * PAGE : (number + 1) * PAGE] = os.urandom(PAGE)

    def commit(self) -> str:
        """One more version; a container of the last one (or of nothing) that is gone afterwards."""
        snapshot = os.urandom(8).hex()
        below = self.layers if self.stacked else []
        self.store.snapshots.prepare(snapshot, below)
        path = self.store.snapshots.upper(snapshot) / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.data)
        layer = self.store.snapshots.commit(snapshot)
        with self.store.db.transaction() as tx:
            stack = [*below, layer.diff_id]
            Layers.set_root(tx, f"image:{len(self.layers)}", stack)
        note(self.store.layers.packing, layer.diff_id, self.layers[::-1])
        self.store.snapshots.remove(snapshot)
        self.layers.append(layer.diff_id)
        self.contents.append(bytes(self.data))
        return layer.diff_id

    def stack(self, number: int) -> list[str]:
        return self.layers[: number + 1] if self.stacked else [self.layers[number]]

    def shown(self, number: int) -> bytes:
        """The file as a container over a version sees it, without its being mounted."""
        snapshot = f"look{number}"
        self.store.snapshots.prepare(snapshot, self.stack(number))
        with open(self.store.layers.path(self.layers[number]) / self.name, "rb") as file:
            data = file.read()
        self.store.snapshots.remove(snapshot)
        return data

    def plain_tar(self, number: int) -> bytes:
        return b"".join(self.store.layers.reassemble(self.layers[number]))


def disk_bytes(root: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))


@pytest.mark.parametrize("stacked", [False, True])
def test_versions_cost_what_changed(store: Store, stacked: bool) -> None:
    """Twelve versions of 4 MiB with eight changed pages each take little more than one."""
    versions = Versions(store, stacked=stacked)
    for _ in range(12):
        versions.change(8)
        versions.commit()
        store.layers.tidy()
    store.layers.empty_trash()
    store.snapshots.empty_trash()
    store.layers.tidy()
    assert disk_bytes(store.root / "storage") < SIZE + 12 * 8 * PAGE * 3 // 2 + MIB
    for number in range(12):
        assert digest_bytes(versions.plain_tar(number)) == versions.layers[number]
    assert pack_usage(store.layers.packing).files == 11
    for number in (0, 6, 11):
        assert versions.shown(number) == versions.contents[number]


def packed_versions(store: Store, count: int = 4, *, stacked: bool = False) -> Versions:
    versions = Versions(store, stacked=stacked, size=MIB)
    for _ in range(count):
        versions.change(3)
        versions.commit()
    assert store.layers.tidy().files == count - 1
    return versions


def remove_image(store: Store, number: int) -> None:
    with store.db.transaction() as tx:
        Layers.drop_root(tx, f"image:{number}")
    store.layers.collect()
    store.layers.empty_trash()
    store.layers.tidy()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 1, 3, 0)])
def test_versions_survive_the_removal_of_others(store: Store, order: tuple[int, ...]) -> None:
    """Whatever goes first, the rest can be had; when all are gone, so are layers and packs."""
    versions = packed_versions(store)
    left = set(order)
    for number in order:
        remove_image(store, number)
        left.discard(number)
        assert check_packing(store.layers.packing) == []
        assert {layer.diff_id for layer in store.layers.all()} == {versions.layers[one] for one in left}
        for one in left:
            assert digest_bytes(versions.plain_tar(one)) == versions.layers[one]
    assert pack_usage(store.layers.packing).pack_bytes == 0
    assert not store.db.all(
        "SELECT 1 FROM chunks UNION ALL SELECT 1 FROM dead_ranges UNION ALL SELECT 1 FROM superseded"
    )


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_kernel_shows_any_version(store: Store, tmp_path: Path, number: int) -> None:
    """A container made of a packed version sees its bytes, its time and mode; afterwards the version stays plain."""
    versions = packed_versions(store, stacked=True)
    path = store.layers.path(versions.layers[number]) / versions.name
    before = path.stat()
    root = store.snapshots.prepare("run", versions.stack(number))
    shown = in_mount(root, tmp_path / "mount", f"sha256sum < {versions.name}")
    assert shown.decode().split() == [hashlib.sha256(versions.contents[number]).hexdigest(), "-"]
    after = path.stat()
    assert (after.st_mtime_ns, after.st_mode, after.st_ino) == (before.st_mtime_ns, before.st_mode, before.st_ino)
    store.snapshots.remove("run")
    store.layers.tidy()
    assert path.stat().st_blocks * 512 >= MIB
    assert tidy(store.layers.packing, eager=True).files == (1 if number < 3 else 0)


def test_what_a_container_sees_stays_plain(store: Store) -> None:
    """Packing waits for containers of the version itself, not for those of later ones that cover the file."""
    versions = Versions(store, stacked=True, size=MIB)
    for _ in range(3):
        versions.change()
        versions.commit()
    store.snapshots.prepare("first", versions.stack(0))
    store.snapshots.prepare("last", versions.stack(2))
    done = store.layers.tidy()
    assert (done.files, done.waiting) == (1, 1)
    plain = [(store.layers.path(one) / versions.name).stat().st_blocks > 8 for one in versions.layers]
    assert plain == [True, False, True]
    store.snapshots.remove("first")
    assert store.layers.tidy().files == 1
    with store.layers.lease([versions.layers[2]]):
        versions.change()
        versions.commit()
        assert store.layers.tidy().files == 0
    store.snapshots.remove("last")
    assert store.layers.tidy().files == 1


def test_readers_of_packed_layers(store: Store) -> None:
    """Export, comparison and squash read packed versions without unpacking them."""
    versions = packed_versions(store, stacked=True)
    written = bytearray()
    store.snapshots.export_layers(versions.stack(1), written.extend)
    with tarfile.open(fileobj=io.BytesIO(bytes(written))) as archive:
        member = archive.extractfile(versions.name)
        assert member is not None
        assert member.read() == versions.contents[1]
    with (
        store.layers.lease(versions.layers) as lease,
        store.snapshots.stack_of(versions.stack(1)) as old,
        store.snapshots.stack_of(versions.stack(2)) as new,
    ):
        assert [(one.path, one.what) for one in compare(old, new)] == [("/db/data", ("content",))]
        squashed = store.snapshots.squash(versions.stack(1), lease=lease)
        assert squashed.diff_id == versions.layers[1]  # the same tar, so it was read right
    assert pack_usage(store.layers.packing).files == 3


def test_a_version_is_read_while_it_is_unpacked(store: Store) -> None:
    """A reader that began before goes on; what was given up is not given back under it."""
    versions = packed_versions(store)
    reader = store.layers.reassemble(versions.layers[0])
    parts = [next(reader) for _ in range(3)]
    assert versions.shown(0) == versions.contents[0]
    store.layers.tidy()
    parts += reader
    assert digest_bytes(b"".join(parts)) == versions.layers[0]


def test_layers_are_used_while_they_are_packed(store: Store) -> None:
    """Containers made of all versions, over and over, while packing goes on in another thread, see what they should."""
    versions = packed_versions(store)
    stop = threading.Event()
    failed: list[BaseException] = []

    def pack() -> None:
        try:
            while not stop.is_set():
                tidy(store.layers.packing, eager=True)
        except BaseException as error:
            failed.append(error)

    packer = threading.Thread(target=pack)
    packer.start()
    try:
        for turn in range(40):
            assert versions.shown(turn % 4) == versions.contents[turn % 4]
            assert digest_bytes(versions.plain_tar(turn % 4)) == versions.layers[turn % 4]
    finally:
        stop.set()
        packer.join()
    assert failed == []


@pytest.mark.parametrize("committed", [True, False])
def test_parked_snapshots_cost_what_is_their_own(store: Store, tmp_path: Path, committed: bool) -> None:
    """What a removed container could show again is packed with its own files, and is all there when it comes back."""
    versions = Versions(store, stacked=True, size=MIB)
    for _ in range(2):
        versions.change()
        versions.commit()
    root = store.snapshots.prepare("old", versions.stack(0))
    own = store.snapshots.upper("old") / versions.name
    if committed:
        own.parent.mkdir()
        own.write_bytes(versions.contents[1])
        own.chmod(0o640)
    with store.db.transaction() as tx:
        store.snapshots.park(tx, "old", versions.layers[::-1])
    assert store.layers.tidy().files == (2 if committed else 1)
    assert (store.layers.path(versions.layers[0]) / versions.name).stat().st_blocks <= 8
    if committed:
        assert own.stat().st_blocks <= 8
        assert own.stat().st_mode & 0o777 == 0o640
    assert check_packing(store.layers.packing) == []
    with store.db.transaction() as tx:
        Layers.drop_root(tx, "image:1")
    store.layers.collect()
    store.layers.tidy()
    with store.db.transaction() as tx:
        store.snapshots.unpark(tx, "old")
    store.snapshots.settle("old")
    shown = in_mount(root, tmp_path / "mount", f"sha256sum < {versions.name}").decode().split()[0]
    assert shown == hashlib.sha256(versions.contents[1 if committed else 0]).hexdigest()
    store.snapshots.remove("old")
    store.layers.tidy()
    assert not store.db.all("SELECT 1 FROM parked UNION ALL SELECT 1 FROM packed_files WHERE diff_id LIKE 'upper:%'")


def test_a_parked_snapshot_is_removed(store: Store) -> None:
    """What its files had in packs goes with it."""
    versions = Versions(store, size=MIB)
    versions.commit()
    store.snapshots.prepare("old", [])
    own = store.snapshots.upper("old") / versions.name
    own.parent.mkdir()
    versions.change()
    own.write_bytes(versions.data)
    with store.db.transaction() as tx:
        store.snapshots.park(tx, "old", versions.layers)
    assert store.layers.tidy().files == 1
    store.snapshots.remove("old")
    store.snapshots.empty_trash()
    store.layers.tidy()
    assert pack_usage(store.layers.packing) == PackUsage(files=0, plain_bytes=0, pack_bytes=0, layer_bytes={})


def damage(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_damaged_packs_are_named(tmp_path: Path) -> None:
    """One wrong bit in a pack: the check names pack, layer and path, and nobody gets the bytes."""
    store = Store(tmp_path / "hurt")
    versions = packed_versions(store)
    row = store.db.all("SELECT * FROM chunks ORDER BY chunk_id")[0]
    damage(store.layers.packing.packs.root / str(row["pack"]), row["offset"])
    found = check_packing(store.layers.packing)
    assert found
    hurt = [number for number in range(4) if any(versions.layers[number] in line for line in found)]
    assert len(hurt) == len(found)
    assert all("'db/data'" in line and f"pack {row['pack']} is damaged" in line for line in found)
    for number in range(4):
        if number not in hurt:
            assert versions.shown(number) == versions.contents[number]
            continue
        with pytest.raises(errors.Internal, match="is damaged"):
            store.snapshots.prepare("hurt", versions.stack(number))
        assert not store.snapshots.exists("hurt")
        with pytest.raises(errors.Internal, match="is damaged"):
            versions.plain_tar(number)
    store.close()


def test_a_damaged_base_is_found(tmp_path: Path) -> None:
    """What older versions take from the newest one is checked as a whole."""
    store = Store(tmp_path / "hurt")
    versions = packed_versions(store)
    damage(store.layers.path(versions.layers[3]) / versions.name, MIB - 1)
    assert len(check_packing(store.layers.packing)) == 3
    with pytest.raises(errors.Internal, match="have another digest"):
        store.snapshots.prepare("hurt", versions.stack(2))
    assert (store.layers.path(versions.layers[2]) / versions.name).stat().st_blocks <= 8
    store.close()


def test_what_is_not_packed(store: Store) -> None:
    """Small files, files of two names, with privileges, and those that nothing of their next version is in."""
    versions = Versions(store, size=MIB)
    upper = None
    for turn in range(2):
        snapshot = f"s{turn}"
        store.snapshots.prepare(snapshot, [])
        upper = store.snapshots.upper(snapshot)
        (upper / "small").write_bytes(bytes(range(256)) * 1024)
        (upper / "two").write_bytes(versions.data)
        os.link(upper / "two", upper / "names")
        (upper / "root").write_bytes(versions.data)
        (upper / "root").chmod(0o4755)
        (upper / "able").write_bytes(versions.data)
        subprocess.run(["setcap", "cap_net_raw+ep", str(upper / "able")], check=True)
        (upper / "other").write_bytes(os.urandom(MIB))
        (upper / "turn").write_text(snapshot)
        layer = store.snapshots.commit(snapshot)
        note(store.layers.packing, layer.diff_id, versions.layers)
        versions.layers.append(layer.diff_id)
    assert store.layers.tidy().files == 0
    assert store.layers.tidy().files == 0
    assert pack_usage(store.layers.packing).pack_bytes == 0


def test_everything_at_once(store: Store) -> None:
    """Without any note: `note_everything` finds versions by their paths; unpacking all brings all back."""
    versions = Versions(store, size=MIB)
    for _ in range(4):
        versions.change(2)
        versions.commit()
    with store.db.transaction() as tx:
        tx.run("DELETE FROM successors")
    note_everything(store.layers.packing, versions.layers)
    assert store.layers.tidy().files == 3
    for file in store.layers.packing.rows.all():
        assert store.layers.packing.unpack(file.file_id)
    for number in range(4):
        assert (store.layers.path(versions.layers[number]) / versions.name).read_bytes() == versions.contents[number]


def test_maps() -> None:
    """A map over a map says for every byte what both say one after the other."""
    lower = [Entry(10, 7, 5), Entry(5, BASE), Entry(5, ZEROS), Entry(20, BASE)]
    upper = [Entry(3, BASE), Entry(4, 9), Entry(13, BASE), Entry(10, ZEROS), Entry(10, BASE)]
    assert compose(upper, lower) == [
        Entry(3, 7, 5), Entry(4, 9), Entry(3, 7, 12), Entry(5, BASE), Entry(15, ZEROS),
        Entry(10, BASE),
    ]  # fmt: skip
    with pytest.raises(errors.Internal):
        compose([Entry(50, BASE)], lower)


def test_chunks_that_go_while_a_file_is_packed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another file's version shares with the one being packed may go with its layer meanwhile."""
    first = Versions(store, size=MIB)
    first.commit()
    first.change(3)
    first.commit()
    assert store.layers.tidy().files == 1
    second = Versions(store, size=MIB, name="db/other")
    with store.db.transaction() as tx:
        Layers.set_root(tx, "first", first.layers)
    for content in first.contents:
        second.data = bytearray(content)
        second.commit()
    chunks = store.layers.packing.chunks
    find = chunks.find

    def find_and_lose(digest: bytes) -> int | None:
        found = find(digest)
        with store.db.transaction() as tx:
            Layers.drop_root(tx, "first")
        store.layers.collect()
        return found

    monkeypatch.setattr(chunks, "find", find_and_lose)
    store.layers.tidy()
    monkeypatch.undo()
    store.layers.tidy()
    for number in range(2):
        assert digest_bytes(second.plain_tar(number)) == second.layers[number]
