"""Packing that fails or dies at any step, or on a full disk: versions stay whole, and the next time goes through."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from engine_store import Store
from test_packing import MIB, Versions

from support import forked
from tare import errors, faults
from tare.storage.chunks.check import check_packing, pack_usage
from tare.storage.layers import Layers
from tare.values.digest import digest_bytes

COUNT = 3


def pack(store: Store, _: list[str]) -> None:
    store.layers.tidy()


def unpack(store: Store, layers: list[str]) -> None:
    store.layers.tidy()
    store.snapshots.prepare("run", [layers[0]])
    store.snapshots.prepare("again", [layers[1]])


def come_back(store: Store, layers: list[str]) -> None:
    """A container that is like the newest version but for a page is parked, and comes back."""
    data = bytearray((store.layers.path(layers[-1]) / "db/data").read_bytes())
    data[:4096] = os.urandom(4096)
    store.snapshots.prepare("old", [layers[0]])
    own = store.snapshots.upper("old") / "db/data"
    own.parent.mkdir()
    own.write_bytes(data)
    with store.db.transaction() as tx:
        store.snapshots.park(tx, "old", layers[::-1])
    store.layers.tidy()
    assert own.stat().st_blocks <= 8
    with store.db.transaction() as tx:
        store.snapshots.unpark(tx, "old")
    store.snapshots.settle("old")
    assert own.read_bytes() == data


def collect_first(store: Store, layers: list[str]) -> None:
    _collect(store, 0)


def collect_middle(store: Store, layers: list[str]) -> None:
    _collect(store, 1)


def collect_last(store: Store, layers: list[str]) -> None:
    _collect(store, COUNT - 1)


def _collect(store: Store, number: int) -> None:
    store.layers.tidy()
    with store.db.transaction() as tx:
        Layers.drop_root(tx, f"image:{number}")
    store.layers.collect()
    store.layers.tidy()
    store.layers.empty_trash()


DEEDS: dict[Callable[[Store, list[str]], None], tuple[str, ...]] = {
    pack: (
        "storage.pack.noted", "storage.pack.append", "storage.pack.synced", "storage.pack.marked",
        "storage.pack.recorded", "storage.pack.emptied", "storage.database.commit",
    ),
    unpack: (
        "storage.snapshot.row", "storage.unpack.write", "storage.unpack.synced", "storage.unpack.cleared",
        "storage.unpack.written",
        "storage.unpack.recorded", "storage.pack.marked",
    ),
    come_back: (
        "storage.pack.marked", "storage.pack.recorded", "storage.pack.emptied", "storage.unpack.write",
        "storage.unpack.written",
    ),
    collect_first: ("storage.pack.punch", "storage.pack.given_back"),
    collect_middle: ("storage.layer.collect", "storage.database.commit"),
    collect_last: (
        "storage.layer.collect", "storage.unpack.write", "storage.unpack.recorded", "storage.pack.given_back",
        "storage.trash.throw", "storage.trash.delete",
    ),
}  # fmt: skip
CASES = [(deed, point, "kill") for deed, points in DEEDS.items() for point in points] + [
    (pack, "storage.pack.append", "raise"),
    (pack, "storage.pack.marked", "raise"),
    (pack, "storage.pack.emptied", "raise"),
    (unpack, "storage.unpack.write", "raise"),
    (unpack, "storage.unpack.cleared", "raise"),
    (unpack, "storage.unpack.written", "raise"),
    (pack, "storage.pack.append", "full"),
    (pack, "storage.database.commit", "full"),
    (unpack, "storage.snapshot.row", "full"),
    (unpack, "storage.unpack.write", "full"),
    (unpack, "storage.pack.marked", "full"),
    (come_back, "storage.unpack.write", "full"),
]
if os.environ.get("TARE_SWEEP") == "all":
    CASES += [
        (deed, point, "full")
        for deed, points in DEEDS.items()
        for point in points
        if deed is not come_back or ".unpack." in point  # what wasn't packed can't come back
    ]


def check(store: Store, versions: Versions) -> None:
    """Every layer that is there is whole."""
    assert check_packing(store.layers.packing) == []
    for layer in store.layers.all():
        assert digest_bytes(b"".join(store.layers.reassemble(layer.diff_id))) == layer.diff_id


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that a test fills; also quicker than a disk."""
    root = tmp_path / "mounted"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=110m", "tmpfs", str(root)], check=True)
    yield root
    subprocess.run(["umount", str(root)], check=True)


@pytest.mark.parametrize(
    ("deed", "point", "action"), CASES, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_cut_short(disk: Path, deed: Callable[[Store, list[str]], None], point: str, action: str) -> None:
    """At each of its first passages; then the same deed, and in the end nothing is left over."""
    first = Store(disk / "first")
    versions = Versions(first, size=MIB)
    for _ in range(COUNT):
        versions.change(2)
        versions.commit()
    first.snapshots.empty_trash()
    first.close()
    passage, through = 0, False
    while not through and passage < (4 if deed is come_back else 2):
        passage += 1
        root = disk / str(passage)
        subprocess.run(["cp", "-a", str(disk / "first"), str(root)], check=True)
        child = forked.begin(point, passage, action, partial(Store, root), lambda opened: deed(opened, versions.layers))
        through = forked.end(child)
        store = Store(root)
        check(store, versions)
        for name in store.snapshots.ids():
            store.snapshots.remove(name)  # as a start of the engine does with those of no container
        deed(store, versions.layers)
        check(store, versions)
        for name in store.snapshots.ids():
            store.snapshots.remove(name)
        with store.db.transaction() as tx:
            for number in range(COUNT):
                Layers.drop_root(tx, f"image:{number}")
        store.layers.collect()
        store.layers.tidy()
        store.layers.empty_trash()
        assert pack_usage(store.layers.packing).pack_bytes == 0
        assert not store.db.all("SELECT 1 FROM chunks UNION ALL SELECT 1 FROM dead_ranges")
        store.close()
        shutil.rmtree(root)
    assert passage > 1, "the deed never passes this point"


def test_an_unpacking_that_fails_at_its_end_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark goes when the content is on the disk; what fails then doesn't take the content away again."""
    versions = Versions(store, size=MIB)
    for _ in range(2):
        versions.change(2)
        versions.commit()
    assert store.layers.tidy().files == 1
    for name, value in (("_name", "storage.unpack.cleared"), ("_left", 1), ("_action", "raise")):
        monkeypatch.setattr(faults, name, value)
    with pytest.raises(faults.InjectedFault):
        store.snapshots.prepare("run", versions.layers[:1])
    assert versions.shown(0) == versions.contents[0]


def test_full_disk(disk: Path) -> None:
    """On a full disk packing waits, a version that needs space to run says so, and both go well afterwards."""
    store = Store(disk / "data")
    versions = Versions(store, size=8 * MIB)
    for _ in range(2):
        versions.change(2)
        versions.commit()
    store.snapshots.empty_trash()
    ballast = disk / "ballast"

    def fill(left: int) -> None:
        ballast.write_bytes(b"")
        status = os.statvfs(disk)
        ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - left))

    fill(30 * MIB)
    assert store.layers.tidy().files == 0
    assert check_packing(store.layers.packing) == []
    ballast.unlink()
    assert store.layers.tidy().files == 1
    fill(60 * MIB)
    with pytest.raises(errors.ResourceExhausted, match="no space left on device"):
        store.snapshots.prepare("run", [versions.layers[0]])
    assert not store.snapshots.ids()
    assert digest_bytes(versions.plain_tar(0)) == versions.layers[0]
    ballast.unlink()
    assert versions.shown(0) == versions.contents[0]
    store.close()
