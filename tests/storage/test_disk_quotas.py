"""Limits of trees by project quotas: what is written is held to them, the ids last, and nothing is left behind."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_store import Store
from test_snapshots import image_root, in_mount

from support.quota_disks import KINDS, quota_disk
from tare.errors import KernelError, Unsupported
from tare.kernel import quotas as kernel
from tare.storage.quotas import give_all
from tare.values.mount import OverlayRoot

MIB = 1 << 20


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with quota_disk(request.param, tmp_path) as root:
        yield root


@pytest.fixture
def shm() -> Iterator[Path]:
    """A place on a tmpfs, which limits no trees."""
    with tempfile.TemporaryDirectory(prefix="tare-quotas-", dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def limited(disk: Path) -> Iterator[Store]:
    store = Store(disk / "data")
    yield store
    store.close()


def layer(store: Store, tmp_path: Path) -> list[str]:
    return [store.layers.add(io.BytesIO(image_root(tmp_path / "image"))).diff_id]


def written(root: OverlayRoot, tmp_path: Path, mib: int, name: str = "big") -> int:
    """How many bytes of so many could be written through a real overlay."""
    script = f"dd if=/dev/zero of={name} bs=64k count={mib * 16} conv=fsync 2>/dev/null || true"
    script += f"; stat -c %s {name} 2>/dev/null || echo 0"
    return int(mounted(root, tmp_path, script))


def mounted(root: OverlayRoot, tmp_path: Path, script: str) -> bytes:
    """Runs a shell script in it. A full one gets a little room while it is mounted, as the runtime does it."""
    if not root.limit_bytes:
        return in_mount(root, tmp_path / "mount", script)
    upper = root.upper or ""
    again = f"os.open({upper!r}, 0), {root.project}, {root.limit_bytes}"
    tighten = f'{sys.executable} -c "import os; from tare.kernel import quotas; quotas.set_limit({again})"'
    fd = os.open(upper, os.O_RDONLY)
    try:
        with kernel.loosened(fd, root.project, root.limit_bytes):
            return in_mount(root, tmp_path / "mount", f"{tighten}; {script}")
    finally:
        os.close(fd)


def kernel_limit(disk: Path, project: int) -> int:
    fd = os.open(disk, os.O_RDONLY)
    try:
        return kernel.usage(fd, project)[2]
    finally:
        os.close(fd)


def project_of(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return kernel.project_of(fd)
    finally:
        os.close(fd)


def test_a_snapshot_is_held_to_its_limit_and_others_are_not(limited: Store, tmp_path: Path) -> None:
    """New files, and a file of the image that is written to (its copy counts), in a real overlay."""
    layers = layer(limited, tmp_path)
    small = limited.snapshots.prepare("small", layers, size_bytes=8 * MIB)
    other = limited.snapshots.prepare("other", layers)
    assert 7 * MIB <= written(small, tmp_path, 30) <= 8 * MIB
    assert written(other, tmp_path, 30) == 30 * MIB
    assert mounted(small, tmp_path, "rm big; echo fits > again; cat again") == b"fits\n"
    assert 7 * MIB <= written(small, tmp_path, 30) <= 8 * MIB
    assert limited.snapshots.limit("small") == 8 * MIB and limited.snapshots.limit("other") == 0


def test_a_limit_is_changed_and_lifted(limited: Store, tmp_path: Path) -> None:
    """Up, down (what is there stays), away; and one that a snapshot with files in it gets counts these."""
    layers = layer(limited, tmp_path)
    root = limited.snapshots.prepare("s", layers)
    in_mount(root, tmp_path / "mount", "mkdir -p a/b; ln -s nowhere a/link; mkfifo a/pipe; ln /bin/true hard || true")
    assert written(root, tmp_path, 5, "a/b/old") == 5 * MIB

    def change(size: int) -> int:
        with limited.db.transaction() as tx:
            limited.snapshots.begin_limit(tx, "s", size)
        return limited.snapshots.finish_limit("s")

    def now() -> OverlayRoot:
        root = limited.snapshots.root_filesystem("s")
        assert isinstance(root, OverlayRoot)
        return root

    used = change(8 * MIB)
    assert 5 * MIB <= used < 6 * MIB
    assert written(now(), tmp_path, 30) <= 3 * MIB
    mounted(now(), tmp_path, "mv a/b moved; rm big")
    change(20 * MIB)
    assert 14 * MIB <= written(now(), tmp_path, 30) <= 15 * MIB
    assert change(1 * MIB) >= 19 * MIB
    assert written(now(), tmp_path, 1, "more") < 64 << 10
    change(0)
    assert written(now(), tmp_path, 30) == 30 * MIB


def test_it_lasts_and_is_put_right(limited: Store, tmp_path: Path, disk: Path) -> None:
    """Over a restart, over a kernel that has forgotten it, over a copy of the data root that lost the projects."""
    layers = layer(limited, tmp_path)
    limited.snapshots.prepare("s", layers, size_bytes=4 * MIB)
    upper = limited.snapshots.upper("s")
    project = project_of(upper)
    fd = os.open(upper, os.O_RDONLY)
    kernel.set_limit(fd, project, 0)
    kernel.set_project(fd, 0)
    os.close(fd)
    limited.close()
    store = Store(disk / "data")
    assert project_of(upper) == project and kernel_limit(disk, project) == 4 * MIB
    store.snapshots.settle("s")
    assert written(store.snapshots.root_filesystem("s"), tmp_path, 30) <= 4 * MIB
    store.close()


def test_a_reset_snapshot_and_an_adopted_one_are_limited(limited: Store, tmp_path: Path) -> None:
    """Checkout empties it; an upper directory that came from elsewhere counts with what is in it."""
    layers = layer(limited, tmp_path)
    root = limited.snapshots.prepare("s", layers, size_bytes=4 * MIB)
    written(root, tmp_path, 30)
    with limited.db.transaction() as tx:
        limited.snapshots.begin_reset(tx, "s", layers)
    limited.snapshots.finish_reset("s")
    assert 3 * MIB < written(limited.snapshots.root_filesystem("s"), tmp_path, 30) <= 4 * MIB
    upper = limited.root / "came"
    (upper / "deep/er").mkdir(parents=True)
    (upper / "deep/er/file").write_bytes(b"x" * 3 * MIB)
    limited.snapshots.adopt("moved", layers, upper, size_bytes=5 * MIB)
    limited.snapshots.settle("moved")
    assert written(limited.snapshots.root_filesystem("moved"), tmp_path, 30) <= 2 * MIB
    limited.snapshots.give_back("moved", upper)
    assert (upper / "deep/er/file").stat().st_size == 3 * MIB


def test_ids_are_never_used_twice_and_removal_leaves_nothing(limited: Store, tmp_path: Path, disk: Path) -> None:
    """Not after a removal, nor one that somebody else on the disk has; the kernel forgets what was removed."""
    layers = layer(limited, tmp_path)
    seen = []
    for turn in range(3):
        limited.snapshots.prepare("s", layers, size_bytes=4 * MIB)
        seen.append(project_of(limited.snapshots.upper("s")))
        if turn == 1:
            fd = os.open(disk, os.O_RDONLY)
            kernel.set_limit(fd, seen[-1] + 1, MIB)  # another's
            os.close(fd)
        limited.snapshots.remove("s")
        assert kernel_limit(disk, seen[-1]) == 0
    assert seen[1] == seen[0] + 1 and seen[2] == seen[1] + 2
    limited.snapshots.empty_trash()
    assert limited.db.all("SELECT * FROM projects") == []
    os.sync()
    assert not any(usage_of(disk, project)[0] for project in seen)
    assert kernel_limit(disk, seen[1] + 1) == MIB


def usage_of(disk: Path, project: int) -> tuple[int, int, int]:
    fd = os.open(disk, os.O_RDONLY)
    try:
        return kernel.usage(fd, project)
    finally:
        os.close(fd)


@pytest.mark.parametrize("point", ["storage.quotas.limited", "storage.quotas.given", "storage.quotas.released"])
def test_killed_on_the_way(disk: Path, tmp_path: Path, point: str) -> None:
    """A limit that was being set is set at the next start; one whose tree was being removed goes with it."""
    store = Store(disk / "data")
    layers = layer(store, tmp_path)
    store.snapshots.prepare("s", layers)
    (store.snapshots.upper("s") / "file").write_bytes(b"x" * MIB)
    store.close()
    script = """if True:
        import sys
        from engine_store import Store
        from pathlib import Path
        store = Store(Path(sys.argv[1]))
        with store.db.transaction() as tx:
            store.snapshots.begin_limit(tx, "s", 4 << 20)
        store.snapshots.finish_limit("s")
        store.snapshots.remove("s")
    """
    environment = {**os.environ, "TARE_FAULT": f"{point}:kill", "PYTHONPATH": str(Path(__file__).parent)}
    ended = subprocess.run([sys.executable, "-c", script, str(disk / "data")], env=environment)
    assert ended.returncode == -9
    store = Store(disk / "data")
    project = int(store.db.all("SELECT project_id FROM projects")[0]["project_id"])
    assert kernel_limit(disk, project) == 4 * MIB
    assert project_of(store.snapshots.upper("s") / "file") == project
    store.snapshots.remove("s")
    store.snapshots.empty_trash()
    assert kernel_limit(disk, project) == 0 and store.db.all("SELECT * FROM projects") == []
    store.close()


def test_the_old_call_does_the_same(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.14 there was no quotactl_fd(2)."""
    fd = os.open(disk, os.O_RDONLY)
    kernel.set_limit(fd, 77, MIB)

    def gone(call: str, *arguments: object, about: str | None = None) -> int:
        if call == "quotactl_fd":
            raise KernelError(errno.ENOSYS, call)
        return real(call, *arguments, about=about)  # type: ignore[arg-type]

    real = kernel.syscall
    monkeypatch.setattr(kernel, "syscall", gone)
    assert kernel.is_enforced(fd) and kernel.usage(fd, 77) == (0, 0, MIB)
    kernel.set_limit(fd, 77, 0)
    assert kernel.usage(fd, 77) == (0, 0, 0)
    os.close(fd)


def test_no_link_is_followed(disk: Path, tmp_path: Path) -> None:
    """Neither out of the tree nor to a directory beside it."""
    outside = disk / "outside"
    outside.mkdir()
    tree = disk / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    (tree / "far").symlink_to("/")
    give_all(tree, 99)
    assert project_of(tree) == 99 and project_of(outside) == 0


def test_without_quotas_it_is_refused_and_nothing_stays(tmp_path: Path, shm: Path) -> None:
    """A data root on a file system that limits nothing: the error says what is missing and how it is had."""
    store = Store(shm)
    layers = layer(store, tmp_path)
    with pytest.raises(Unsupported, match=r"'pquota' mount option, or ext4 with 'prjquota': .* has no project quotas"):
        store.snapshots.prepare("s", layers, size_bytes=MIB)
    assert store.snapshots.ids() == [] and store.leftovers() == []
    assert store.db.all("SELECT * FROM projects") == []
    store.close()
