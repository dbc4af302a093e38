"""On file systems whose files can share blocks, versions share them: no packing, and every version is plain."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_store import Store
from test_packing import MIB, Versions
from test_snapshots import in_mount

from tare.storage.chunks.check import pack_usage
from tare.storage.layers import Layers

SIZE = 8 * MIB


@pytest.fixture(params=["btrfs", "xfs"])
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if shutil.which(f"mkfs.{request.param}") is None:
        pytest.skip(f"mkfs.{request.param} is not installed")
    image, root = tmp_path / "image", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    root.mkdir()
    subprocess.run([f"mkfs.{request.param}", "-q", str(image)], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(root)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"{request.param} can't be mounted here: {mounted.stderr.strip()}")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


def used(root: Path) -> int:
    subprocess.run(["sync", "-f", str(root)], check=True)
    status = os.statvfs(root)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_a_page_costs_a_page(sharing: Path, tmp_path: Path) -> None:
    """Ten commits of a container that changes a page of its image's file each time, through a real overlay."""
    store = Store(sharing / "data")
    assert store.layers.packing.shares
    versions = Versions(store, size=SIZE)
    versions.commit()
    before = used(sharing)
    layers = list(versions.layers)
    for turn in range(10):
        root = store.snapshots.prepare(f"c{turn}", layers)
        command = (
            f"dd if=/dev/urandom of=db/data bs=4096 count=1 conv=notrunc seek={turn * 7} 2>/dev/null; sync db/data"
        )
        in_mount(root, tmp_path / "mount", command)
        layer = store.snapshots.commit(f"c{turn}")
        with store.db.transaction() as tx:
            Layers.set_root(tx, f"image:{turn + 1}", [*layers, layer.diff_id])
        store.snapshots.remove(f"c{turn}")
        layers.append(layer.diff_id)
    store.snapshots.empty_trash()
    store.layers.tidy()
    assert used(sharing) - before < SIZE // 2
    store.close()


def test_rewritten_files_are_shared_afterwards(sharing: Path) -> None:
    """A program that writes its file anew each time costs what changed, too, once the versions were compared."""
    store = Store(sharing / "data")
    versions = Versions(store, size=SIZE)
    versions.commit()
    start = used(sharing)
    for _ in range(5):
        versions.change()
        versions.commit()
    store.snapshots.empty_trash()
    before = used(sharing)
    assert before - start > 4 * SIZE
    store.layers.tidy()
    assert used(sharing) - start < SIZE
    assert pack_usage(store.layers.packing).files == 0
    for number in range(6):
        assert versions.shown(number) == versions.contents[number]
    store.close()
