"""Several layers as one: mounted by overlayfs, it shows the same over what is below."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engine_store import Store

from support.trees import overlay
from tare.errors import Unsupported
from tare.values.digest import digest_bytes

NAMES = ("a", "b", "c")


@contextmanager
def mounted(point: Path, options: str) -> Iterator[Path]:
    """An overlay with redirect_dir and metacopy off, as containers have it."""
    point.mkdir(exist_ok=True)
    with overlay(point, f"{options},redirect_dir=off,metacopy=off"):
        yield point


def disturb(root: Path, choose: random.Random) -> None:
    """Some random changes, as a container's processes make them."""
    for _ in range(8):
        path = root.joinpath(*choose.choices(NAMES, k=choose.randint(1, 3)))
        action = choose.choice(["write", "write", "mkdir", "remove", "chmod", "link", "symlink", "replace"])
        if action in ("remove", "replace") and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif action in ("remove", "replace") and os.path.lexists(path):
            path.unlink()
        if action == "remove" or any(os.path.lexists(up) and not up.is_dir() for up in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        there = os.path.lexists(path)
        if action in ("write", "replace") and not path.is_dir() and not path.is_symlink():
            path.write_text(str(choose.random()))
        elif action == "mkdir" and not there:
            path.mkdir()
        elif action == "chmod" and there and not path.is_symlink():
            path.chmod(choose.choice([0o700, 0o755]))
        elif action == "symlink" and not there:
            path.symlink_to("target")
        elif action == "link" and not there:
            files = [one for one in root.rglob("*") if one.is_file() and not one.is_symlink()]
            if files:
                os.link(choose.choice(files), path)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(folder, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # a whiteout in a directory that isn't merged: listed, but not there
            content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
            found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def empty_layer(store: Store) -> str:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("start"))
    return store.layers.add(io.BytesIO(data.getvalue())).diff_id


def commits(store: Store, tmp_path: Path, choose: random.Random, count: int) -> list[str]:
    """Layers made by changing mounted snapshots, bottom first."""
    diff_ids = [empty_layer(store)]
    for number in range(count):
        made = store.snapshots.prepare(f"s{number}", diff_ids)
        options = f"lowerdir={':'.join(made.lower)},upperdir={made.upper},workdir={made.work}"
        with mounted(tmp_path / "work", options) as root:
            disturb(root, choose)
        with store.layers.lease() as lease:
            diff_ids.append(store.snapshots.commit(f"s{number}", lease=lease).diff_id)
            with store.db.transaction() as tx:
                store.layers.set_root(tx, f"test:{number}", diff_ids)
    return diff_ids


def shown(store: Store, tmp_path: Path, diff_ids: list[str]) -> dict[str, tuple[object, ...]]:
    with store.snapshots.stack_of(diff_ids):
        lower = ":".join(store.snapshots._stacked(tuple(diff_ids)).lower)
        with mounted(tmp_path / "view", f"ro,lowerdir={lower}") as root:
            return listing(root)


@pytest.mark.parametrize("seed", range(12))
def test_random_layers(store: Store, tmp_path: Path, seed: int) -> None:
    """Squashed from any layer on: the same names, kinds, modes, times, contents as the kernel shows of all."""
    choose = random.Random(seed)
    diff_ids = commits(store, tmp_path, choose, 5)
    wanted = shown(store, tmp_path, diff_ids)
    for below in (0, 1, 3):
        with store.layers.lease() as lease:
            squashed = store.snapshots.squash(diff_ids[below:], lease=lease)
            assert digest_bytes(b"".join(store.layers.reassemble(squashed.diff_id))) == squashed.diff_id
            assert shown(store, tmp_path, [*diff_ids[:below], squashed.diff_id]) == wanted


def test_hard_links_stay_one_file(store: Store, tmp_path: Path) -> None:
    """Names of one file in a layer are names of one file in the squashed layer."""
    diff_ids = [empty_layer(store)]
    made = store.snapshots.prepare("s", diff_ids)
    assert made.upper
    upper = Path(made.upper)
    (upper / "one").write_text("x")
    os.link(upper / "one", upper / "two")
    with store.layers.lease() as lease:
        diff_ids.append(store.snapshots.commit("s", lease=lease).diff_id)
        squashed = store.layers.path(store.snapshots.squash(diff_ids, lease=lease).diff_id)
        assert (squashed / "one").stat().st_ino == (squashed / "two").stat().st_ino


def test_a_layer_that_hides_all_is_refused(store: Store) -> None:
    """An opaque root can't be said of a layer in the middle."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(".wh..wh..opq"))
    with store.layers.lease() as lease:
        layer = store.layers.add(io.BytesIO(data.getvalue()), lease=lease)
        with pytest.raises(Unsupported, match="hides all below"):
            store.snapshots.squash([layer.diff_id], lease=lease)
