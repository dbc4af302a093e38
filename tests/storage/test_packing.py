"""Packing: older versions of a large file cost what changed, and are whole whenever somebody asks for them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_store import Store

from tare import errors
from tare.storage.chunks.check import check_packing, pack_usage
from tare.storage.chunks.tidy import note, note_everything, tidy
from tare.storage.layers import Layers
from tare.values.digest import digest_bytes

MIB = 1 << 20
SIZE = 8 * MIB
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
    """Twenty versions of 8 MiB with eight changed pages each take little more than one."""
    versions = Versions(store, stacked=stacked)
    for _ in range(20):
        versions.change(8)
        versions.commit()
        store.layers.tidy()
    store.layers.empty_trash()
    store.snapshots.empty_trash()
    store.layers.tidy()
    assert disk_bytes(store.root / "storage") < SIZE + 20 * 8 * PAGE * 3 // 2 + MIB
    for number in range(20):
        assert digest_bytes(versions.plain_tar(number)) == versions.layers[number]
    assert pack_usage(store.layers.packing).files == 19
    for number in (0, 10, 19):
        assert versions.shown(number) == versions.contents[number]
