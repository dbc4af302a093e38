"""Snapshots: what is prepared mounts, what is shown is what the kernel shows, what is committed comes back."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import hostile_archives as hostile
import pytest
from engine_store import Store
from test_extract import _describe

from tare import errors, faults
from tare.storage.merged import is_whiteout
from tare.values.mount import OverlayRoot

# What a user of a container does; run inside the mounted root.
DEEDS = """
rm etc/a; touch etc/b; echo x > d1/d2/new; chmod 600 d1/g
rm -rf opq; mkdir opq; echo n > opq/3; echo one > opq/1
rm -rf opq2 repl; echo file > repl
mkdir -p n1/n2/n3; echo q > n1/n2/n3/f; ln -s /x n1/l; mkfifo n1/p
chmod 700 t; cp -p t/f t/f.tmp; mv t/f.tmp t/f; ln t/h t/h3
rm -rf old/keep; mv mv/one mv/two; mkdir "sp ace"; touch zz ZZ; touch -d @5 t/g; chown 5 d1/d2
mkdir passing; rmdir passing; setfattr -n user.note -v hello d1/g 2>/dev/null || true
"""
# `docker diff` of a real engine (20.10, overlay2) after the same deeds; it gives them in no order.
DOCKER_SAYS = """
C /opq|C /opq/1|A /opq/3|D /opq/2|C /repl|C /d1|C /d1/d2|A /d1/d2/new|C /d1/g|A /n1|A /n1/l|A /n1/n2|A /n1/n2/n3
A /n1/n2/n3/f|A /n1/p|A /zz|C /etc|C /etc/b|D /etc/a|C /old|D /old/keep|A /sp ace|C /t|C /t/g|A /t/h3|A /ZZ|C /mv
A /mv/two|D /mv/one|D /opq2
"""


def image_root(root: Path) -> bytes:
    for directory in ("etc/sub", "d1/d2", "old/keep", "opq", "opq2/deep/er", "repl", "t", "mv"):
        (root / directory).mkdir(parents=True)
    for name in (
        "etc/a", "etc/b", "etc/sub/c", "d1/d2/f", "d1/g", "old/x", "old/keep/y", "opq/1", "opq/2",
        "opq2/deep/er/z", "repl/in", "t/f", "t/g", "t/h", "mv/one",
    ):  # fmt: skip
        (root / name).write_text(name)
    os.link(root / "t/h", root / "t/h2")
    root.chmod(0o751)
    return subprocess.run(["tar", "-C", str(root), "-cf", "-", "."], check=True, capture_output=True).stdout


def in_mount(root: OverlayRoot, mount_point: Path, command: str) -> bytes:
    """Mounts the root in a private mount namespace of a subprocess and runs a shell command there."""
    mount_point.mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(root.lower)},redirect_dir=off,metacopy=off,index=off"
    if root.upper:
        options += f",upperdir={root.upper},workdir={root.work}"
    if root.volatile:
        options += ",volatile"
    script = 'set -e; export LIBMOUNT_FORCE_MOUNT2=always; mount -t overlay overlay -o "$1" "$2"; cd "$2"; eval "$3"'
    return subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", options, str(mount_point), command],
        check=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip


@pytest.fixture
def changed(store: Store, tmp_path: Path) -> OverlayRoot:
    """A snapshot `s` in which the deeds were done."""
    layer = store.layers.add(io.BytesIO(image_root(tmp_path / "image")))
    root = store.snapshots.prepare("s", [layer.diff_id])
    in_mount(root, tmp_path / "mount", DEEDS)
    return root


def test_changes_are_those_of_docker(store: Store, changed: OverlayRoot) -> None:
    """The same lines as a real engine's, sorted by path."""
    ours = [f"{change.kind} {change.path}" for change in store.snapshots.changes("s")]
    assert ours == sorted(DOCKER_SAYS.strip().replace("\n", "|").split("|"), key=lambda line: line[2:])


def test_a_directory_made_anew_deep_down(store: Store, tmp_path: Path) -> None:
    """What it hides is deleted, however deep below the new directory; as real engines have it."""
    layer = store.layers.add(
        io.BytesIO(
            hostile.build(*(hostile.file(f"d/sub/{name}", name.encode()) for name in "xyz"), hostile.file("d/a/b"))
        )
    )
    root = store.snapshots.prepare("s", [layer.diff_id])
    in_mount(root, tmp_path / "mount", "rm -rf d; mkdir -p d/sub; echo new > d/sub/x; echo n > d/sub/n")
    assert [f"{change.kind} {change.path}" for change in store.snapshots.changes("s")] == [
        "C /d", "D /d/a", "C /d/sub", "A /d/sub/n", "C /d/sub/x", "D /d/sub/y", "D /d/sub/z",
    ]  # fmt: skip


def test_merged_view_is_the_kernels(store: Store, changed: OverlayRoot, tmp_path: Path) -> None:
    """An export holds exactly what the mounted root shows: names, owners, modes, times, bytes, links, attributes."""
    in_mount(changed, tmp_path / "mount", f"tar --xattrs --format=pax -cf {tmp_path}/kernel.tar .")
    with (tmp_path / "ours.tar").open("wb") as file:
        store.snapshots.export("s", file.write)
    assert _unpacked(tmp_path, "ours") == _unpacked(tmp_path, "kernel")


def test_committed_layer_shows_the_same(store: Store, changed: OverlayRoot, tmp_path: Path) -> None:
    """Mounting the committed layer over the image shows what the container showed; so does importing its tar anew."""
    below = store.snapshots.diff_ids("s")
    layer = store.snapshots.commit("s")
    again = store.layers.add(io.BytesIO(b"".join(store.layers.reassemble(layer.diff_id))))
    assert again == layer
    describe = "find . -mindepth 1 -printf '%P %y %m %U %G %T@ %l %n %s\\n' | sed -E 's/ [0-9]+$//' | sort"
    view = store.snapshots.prepare("view", [*below, layer.diff_id])
    assert in_mount(view, tmp_path / "mount", describe) == in_mount(changed, tmp_path / "mount", describe)
    assert store.snapshots.changes("view") == []


def test_committed_tree_is_what_its_tar_unpacks_to(store: Store, changed: OverlayRoot, tmp_path: Path) -> None:
    """The copy in the store and the archive it stands for agree in everything, capabilities and ACLs too."""
    upper = Path(changed.upper or "")
    os.setxattr(upper / "d1/g", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(upper / "zz", "system.posix_acl_access", bytes.fromhex(
        "0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff"
    ))  # fmt: skip
    os.utime(upper / "n1/l", ns=(5, -5_000_000_001), follow_symlinks=False)
    (upper / os.fsdecode(b"caf\xe9-" + b"n" * 200)).write_text("not UTF-8 and long")
    layer = store.snapshots.commit("s")
    other = Store(tmp_path / "other")
    again = other.layers.add(io.BytesIO(b"".join(store.layers.reassemble(layer.diff_id))))
    ours, theirs = (_described_layer(each.layers.path(layer.diff_id)) for each in (store, other))
    other.close()
    assert ours == theirs
    assert again.diff_id == layer.diff_id and again.size_bytes == layer.size_bytes
    assert b"security.capability" in repr(ours[b"d1/g"]).encode() and b"posix_acl" in repr(ours[b"zz"]).encode()


def _described_layer(tree: Path) -> dict[bytes, object]:
    """As _describe, without the times of whiteouts, which mean nothing."""
    described = _describe(tree)
    for path in described:
        if is_whiteout((tree / os.fsdecode(path)).lstat()):
            described[path] = "whiteout"
    return described


def test_commit_is_deterministic(store: Store, changed: OverlayRoot, tmp_path: Path) -> None:
    """The same upper directory copied elsewhere gives the same layer."""
    first = store.snapshots.commit("s")
    other = store.snapshots.prepare("other", store.snapshots.diff_ids("s"))
    assert changed.upper and other.upper
    subprocess.run(["cp", "-aT", changed.upper, other.upper], check=True)
    assert store.snapshots.commit("other") == first
    data = b"".join(store.layers.reassemble(first.diff_id))
    assert "sha256:" + hashlib.sha256(data).hexdigest() == first.diff_id
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    assert "etc/.wh.a" in names and ".wh.opq2" in names and "opq/.wh..wh..opq" in names and "d1/d2/f" not in names


def test_commit_of_nothing_is_the_empty_tar(store: Store) -> None:
    """An untouched snapshot commits to the layer that every engine knows as empty."""
    layer = store.layers.add(io.BytesIO(hostile.build(hostile.file("f"))))
    store.snapshots.prepare("s", [layer.diff_id])
    empty = store.snapshots.commit("s")
    assert empty.diff_id == "sha256:" + hashlib.sha256(bytes(1024)).hexdigest()
    assert store.snapshots.changes("s") == []


def test_sparse_files_and_sockets(store: Store, tmp_path: Path) -> None:
    """A hole stays a hole in the committed layer; a socket is left out of everything."""
    import socket

    root = store.snapshots.prepare("s", [])
    assert root.upper
    with (Path(root.upper) / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"data")
    listener = socket.socket(socket.AF_UNIX)
    descriptor = os.open(root.upper, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{descriptor}/sock")
    os.close(descriptor)
    layer = store.snapshots.commit("s")
    listener.close()
    committed = store.layers.path(layer.diff_id) / "sparse"
    assert committed.stat().st_size == 64 << 20
    assert committed.stat().st_blocks * 512 < 1 << 20
    assert committed.read_bytes()[32 << 20 : (32 << 20) + 4] == b"data"
    digest = hashlib.sha256()
    for chunk in store.layers.reassemble(layer.diff_id):
        digest.update(chunk)
    assert "sha256:" + digest.hexdigest() == layer.diff_id
    assert os.listdir(store.layers.path(layer.diff_id)) == ["sparse"]
    names: list[bytes] = []
    store.snapshots.export("s", names.append)
    assert b"sock" not in b"".join(names)
    assert store.snapshots.sizes("s") == (64 << 20, 64 << 20)


def test_the_root_directory_is_the_images(store: Store, tmp_path: Path) -> None:
    """Owner and mode of / come from the topmost layer that has an entry for it; a change is committed."""
    top = hostile.directory("./")
    top.mode, top.uid, top.gid = 0o1770, 7, 8
    below = store.layers.add(io.BytesIO(hostile.build(top, hostile.file("f"))))
    above = store.layers.add(io.BytesIO(hostile.build(hostile.file("g"))))
    root = store.snapshots.prepare("s", [below.diff_id, above.diff_id])
    assert in_mount(root, tmp_path / "mount", "stat -c '%a %u %g' .; chmod 711 .") == b"1770 7 8\n"
    layer = store.snapshots.commit("s")
    assert layer.root_entry
    again = store.snapshots.prepare("t", [below.diff_id, above.diff_id, layer.diff_id])
    assert in_mount(again, tmp_path / "mount", "stat -c '%a %u %g' .") == b"711 7 8\n"


def test_opaque_root_hides_everything_below(store: Store, tmp_path: Path) -> None:
    """overlayfs has no opaque root, so the stack is cut there."""
    below = store.layers.add(io.BytesIO(hostile.build(hostile.file("old"))))
    above = store.layers.add(io.BytesIO(hostile.build(hostile.file(".wh..wh..opq", b""), hostile.file("new"))))
    root = store.snapshots.prepare("s", [below.diff_id, above.diff_id])
    assert b"old" not in in_mount(root, tmp_path / "mount", "ls")
    assert b"new" in in_mount(root, tmp_path / "mount", "ls")


def test_mount_points_are_always_there(store: Store, tmp_path: Path) -> None:
    """An image without /proc, /dev or /etc/hosts still has them; they are no change and never committed."""
    layer = store.layers.add(io.BytesIO(hostile.build(hostile.file("f"))))
    root = store.snapshots.prepare("s", [layer.diff_id])
    listing = in_mount(root, tmp_path / "mount", "find . | sort").decode().split()
    assert {"./proc", "./sys", "./dev/pts", "./dev/shm", "./etc/hosts", "./etc/resolv.conf", "./.dockerenv"} <= set(
        listing
    )
    assert store.snapshots.changes("s") == []


def test_prepare_is_fast_and_private(store: Store) -> None:
    """A snapshot costs far less than a millisecond, and no unprivileged user gets in."""
    layer = store.layers.add(io.BytesIO(hostile.build(hostile.file("f"))))
    best = min(_timed(store, f"n{number}", layer.diff_id) for number in range(50))
    assert best < 0.001
    assert stat.S_IMODE((store.root / "snapshots").stat().st_mode) == 0o700
    assert stat.S_IMODE((store.root / "snapshots/n0").stat().st_mode) == 0o700


def _timed(store: Store, snapshot_id: str, diff_id: str) -> float:
    start = time.perf_counter()
    store.snapshots.prepare(snapshot_id, [diff_id])
    return time.perf_counter() - start


def test_spares_are_never_used_twice(store: Store) -> None:
    """Directories made ahead serve once; when they run out, a snapshot is made as well; they are made anew."""
    spares = store.root / "snapshots/.spare"
    first = {(path / "upper").stat().st_ino for path in spares.iterdir()}
    assert len(first) > 1
    roots = [store.snapshots.prepare(f"s{number}", []) for number in range(len(first) + 2)]
    assert list(spares.iterdir()) == []
    assert {Path(root.upper or "").stat().st_ino for root in roots} > first
    for number in range(len(roots)):
        store.snapshots.remove(f"s{number}")
    store.snapshots.empty_trash()
    assert len(list(spares.iterdir())) == len(first)
    assert store.leftovers() == []


def test_volatile_roots_mount_again(store: Store, tmp_path: Path) -> None:
    """What a volatile mount leaves behind doesn't block the next start."""
    layer = store.layers.add(io.BytesIO(hostile.build(hostile.file("f"))))
    root = store.snapshots.prepare("s", [layer.diff_id], volatile=True)
    assert root.volatile
    in_mount(root, tmp_path / "mount", "echo x > new")
    assert in_mount(store.snapshots.root_filesystem("s"), tmp_path / "mount", "cat new") == b"x\n"


def test_refusals(store: Store) -> None:
    """A taken id, a lost layer and an id that is a path are refused, and nothing is made."""
    layer = store.layers.add(io.BytesIO(hostile.build(hostile.file("f"))))
    store.snapshots.prepare("s", [layer.diff_id])
    with pytest.raises(errors.Conflict):
        store.snapshots.prepare("s", [layer.diff_id])
    with pytest.raises(errors.NotFound):
        store.snapshots.prepare("t", ["sha256:" + "0" * 64])
    for snapshot_id in ("../x", "a/b", ".hidden", "", "x\n"):
        with pytest.raises(errors.InvalidArgument):
            store.snapshots.prepare(snapshot_id, [layer.diff_id])
    with pytest.raises(errors.NotFound):
        store.snapshots.root_filesystem("t")
    assert store.snapshots.ids() == ["s"]


def test_remove(store: Store) -> None:
    """Removal is at once, may be repeated, and the space comes back with the trash."""
    root = store.snapshots.prepare("s", [])
    assert root.upper
    (Path(root.upper) / "f").write_text("x")
    store.snapshots.remove("s")
    store.snapshots.remove("s")
    assert not store.snapshots.exists("s") and not Path(root.upper).exists()
    assert store.snapshots.empty_trash() > 0
    assert store.leftovers() == []


def test_a_link_in_the_upper_directory_is_never_followed(store: Store, tmp_path: Path) -> None:
    """A directory that the container replaced by a link to the host is one link to every walk."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("secret")
    layer = store.layers.add(io.BytesIO(hostile.build(hostile.directory("d"), hostile.file("d/f"))))
    root = store.snapshots.prepare("s", [layer.diff_id])
    assert root.upper
    (Path(root.upper) / "d").symlink_to(tmp_path / "host")
    out: list[bytes] = []
    store.snapshots.export("s", out.append)
    committed = store.snapshots.commit("s")
    assert b"secret" not in b"".join(out).replace(os.fsencode(tmp_path), b"")
    assert [(change.kind, change.path) for change in store.snapshots.changes("s")] == [("C", "/d")]
    assert os.listdir(store.layers.path(committed.diff_id)) == ["d"]


def _unpacked(tmp_path: Path, name: str) -> dict[bytes, object]:
    target = tmp_path / name
    target.mkdir()
    subprocess.run(
        ["tar", "-C", str(target), "--xattrs", "--xattrs-include=*", "-xpf", str(tmp_path / f"{name}.tar")], check=True
    )
    return _describe(target)


@pytest.mark.parametrize("point", ["storage.snapshot.row", "storage.snapshot.directories"])
def test_a_failed_preparation_is_undone(store: Store, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """The same id can be prepared at once."""
    for name, value in (("_name", point), ("_action", "raise"), ("_left", 1)):
        monkeypatch.setattr(faults, name, value)
    with pytest.raises(faults.InjectedFault):
        store.snapshots.prepare("s", [])
    assert store.snapshots.ids() == []
    store.snapshots.prepare("s", [])
