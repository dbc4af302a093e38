"""A tree with every kind of entry goes through commit, save, load, export and import, here and by others' tools.

TARE_TORTURE=all takes 100,000 files and a file of 5 GB; otherwise some thousand and 64 MiB.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import archive_files as made
import pytest
import torture
from image_rooms import Rooms
from test_store_check import check

from support.engine import Engine
from tare.images.archive_load import load
from tare.images.archive_save import choose, save
from tare.images.commit import CommitOptions, commit_snapshot
from tare.images.import_image import import_image
from tare.images.records import Image
from tare.values.reference import parse_reference

WHOLE = os.environ.get("TARE_TORTURE") == "all"
FILES, SPARSE_BYTES = (100_000, 5 << 30) if WHOLE else (2_000, 64 << 20)
STEP_S = 1200 if WHOLE else 120
pytestmark = pytest.mark.timeout(6 * STEP_S)


@pytest.fixture(scope="module")
def story() -> Iterator[tuple[Rooms, Image, torture.Described]]:
    """An engine with a container's commit of the tree, and what the tree is by the kernel's view."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        rooms = Rooms(root / "data")
        base = root / "base"
        base.mkdir()
        torture.make_base(base)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(base, ".")
        packed.seek(0)
        below = import_image(rooms.images, packed, reference=parse_reference("base"))
        rooms.snapshots.prepare("s", below.diff_ids)
        upper = rooms.snapshots.upper("s")
        torture.make_changes(upper)
        torture.make_tree(upper, files=FILES, sparse_bytes=SPARSE_BYTES)
        with torture.mounted(root / "view", [upper, rooms.layers.path(below.diff_ids[0])]) as view:
            wanted = torture.describe(view)
        began = time.monotonic()
        options = CommitOptions(config=below.config, reference=parse_reference("torture:1"))
        image = commit_snapshot(rooms.images, rooms.snapshots, "s", below, options)
        print(f"{len(wanted)} entries; commit {time.monotonic() - began:.1f} s")
        yield rooms, image, wanted
        rooms.close()


def saved(rooms: Rooms, path: Path, name: str) -> Path:
    with path.open("wb") as file:
        save(rooms.images, choose(rooms.images, [name]), file.write)
    return path


def loaded(rooms: Rooms, path: Path) -> Image:
    with path.open("rb") as file:
        return load(rooms.images, file)[0].image


def seen(rooms: Rooms, image: Image, point: Path) -> torture.Described:
    """What the kernel shows of an image."""
    with torture.mounted(point, [rooms.layers.path(diff_id) for diff_id in reversed(image.diff_ids)]) as view:
        return torture.describe(view)


def assert_same(found: torture.Described, wanted: torture.Described) -> None:
    assert [path for path in wanted if path not in found] == []
    assert [path for path in found if path not in wanted] == []
    differing = {path: (found[path], wanted[path]) for path in wanted if found[path] != wanted[path]}
    assert not differing, "\n".join(f"{path!r}: {pair[0]}\n  not {pair[1]}" for path, pair in differing.items())


def test_commit_save_load_export_import(story: tuple[Rooms, Image, torture.Described], tmp_path: Path) -> None:
    """After each of them the kernel shows the same tree; holes stay holes; the archive is the same again."""
    rooms, image, wanted = story
    assert_same(seen(rooms, image, tmp_path / "committed"), wanted)
    archive = saved(rooms, tmp_path / "one.tar", "torture:1")
    other = Rooms(tmp_path / "other")
    again = loaded(other, archive)
    assert (again.id, again.manifest_digest) == (image.id, image.manifest_digest)
    assert_same(seen(other, again, tmp_path / "loaded"), wanted)
    assert saved(other, tmp_path / "two.tar", "torture:1").read_bytes() == archive.read_bytes()
    with (tmp_path / "export.tar").open("wb") as file:
        other.snapshots.export_layers(again.diff_ids, file.write)
    with (tmp_path / "export.tar").open("rb") as file:
        flat = import_image(other.images, file, reference=parse_reference("flat"))
    assert len(flat.diff_ids) == 1
    assert_same(seen(other, flat, tmp_path / "imported"), wanted)
    status = (other.layers.path(flat.diff_ids[0]) / "sparse").stat()
    assert status.st_size == SPARSE_BYTES
    assert status.st_blocks * 512 < 1 << 20
    assert check(other) == []
    other.close()


def as_umoci_sees(described: torture.Described) -> torture.Described:
    """Go's archive/tar takes an empty attribute for none (a PAX record without a value undoes one)."""
    return {
        path: (*told[:-1], tuple(pair for pair in told[-1] if pair[1]))  # type: ignore[attr-defined]
        for path, told in described.items()
    }


def in_seconds(described: torture.Described) -> torture.Described:
    """umoci writes no fractions; and a directory that a layer has only as a parent is that layer's (docs/limits.md)."""
    return {
        path: (*told[:3], int(told[3]) // 10**9, *told[4:])  # type: ignore[call-overload]
        for path, told in as_umoci_sees(described).items()
        if path != b"/links"
    }


def command(*words: object, **more: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=STEP_S, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


def tar_of(directory: Path, path: Path) -> Path:
    """An OCI layout's directory as an archive."""
    members = {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    path.write_bytes(made.archive(members))
    return path


def skopeo_to_layout(archive: Path, layout: Path, tag: str) -> None:
    policy = layout.with_name("policy.json")
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    command(
        "skopeo",
        "--policy",
        policy,
        "--tmpdir",
        layout.parent,
        "copy",
        f"docker-archive:{archive}",
        f"oci:{layout}:{tag}",
    )


def test_through_skopeo_and_umoci(story: tuple[Rooms, Image, torture.Described], tmp_path: Path) -> None:
    """skopeo makes a layout with compressed layers, umoci unpacks it: the same tree; and it comes back the same.

    What goes out of Tare again is the layout that skopeo wrote, blob by blob.
    """
    needs("skopeo", "umoci")
    rooms, image, wanted = story
    skopeo_to_layout(saved(rooms, tmp_path / "one.tar", "torture:1"), tmp_path / "layout", "x")
    command("umoci", "unpack", "--image", f"{tmp_path}/layout:x", tmp_path / "bundle")
    assert_same(torture.describe(tmp_path / "bundle" / "rootfs"), as_umoci_sees(wanted))
    other = Rooms(tmp_path / "other")
    again = loaded(other, tar_of(tmp_path / "layout", tmp_path / "layout.tar"))
    assert again.diff_ids == image.diff_ids
    assert_same(seen(other, again, tmp_path / "loaded"), wanted)
    freed = other.layers.originals.slim()
    kept = sum(original.kept_bytes for original in other.layers.originals.all())
    print(f"compressed layers: {kept} bytes kept as they came, {freed} made again")
    out = saved(other, tmp_path / "out.tar", again.id)
    with tarfile.open(out) as tar:
        blobs = {info.name for info in tar if info.name.startswith("blobs/sha256/") and info.isfile()}
    assert blobs == {f"blobs/sha256/{path.name}" for path in (tmp_path / "layout/blobs/sha256").iterdir()}
    other.close()


def test_through_umoci_repacked(story: tuple[Rooms, Image, torture.Described], tmp_path: Path) -> None:
    """A layer that umoci makes over it, whiteouts among it, comes in, and the kernel shows what umoci saw."""
    needs("skopeo", "umoci")
    rooms, _, _ = story
    skopeo_to_layout(saved(rooms, tmp_path / "one.tar", "torture:1"), tmp_path / "layout", "x")
    command("umoci", "unpack", "--image", f"{tmp_path}/layout:x", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    (root / "kept").unlink()
    shutil.rmtree(root / "merged")
    (root / "plain").write_text("changed by umoci")
    os.utime(root / "plain", (1_700_000_000, 1_700_000_000))  # its archives round times to seconds
    command("umoci", "repack", "--image", f"{tmp_path}/layout:y", tmp_path / "bundle")
    wanted = torture.describe(root)
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    index["manifests"] = [
        entry for entry in index["manifests"] if entry["annotations"]["org.opencontainers.image.ref.name"] == "y"
    ]
    (tmp_path / "layout" / "index.json").write_text(json.dumps(index))
    other = Rooms(tmp_path / "other")
    again = loaded(other, tar_of(tmp_path / "layout", tmp_path / "layout.tar"))
    assert_same(in_seconds(seen(other, again, tmp_path / "loaded")), in_seconds(wanted))
    other.close()


@pytest.fixture
def short_path() -> Iterator[str]:
    """podman takes no longer ones for its --runroot."""
    with tempfile.TemporaryDirectory(prefix="tare-", dir="/tmp") as path:
        yield path


def test_through_podman(story: tuple[Rooms, Image, torture.Described], tmp_path: Path, short_path: str) -> None:
    """podman loads what Tare saved, and Tare what podman saves of it, in both of its formats: the same layers."""
    needs("podman")
    rooms, image, _ = story
    archive = saved(rooms, tmp_path / "one.tar", "torture:1")
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    podman = ["podman", "--root", tmp_path / "root", "--runroot", short_path, "--storage-driver", "vfs"]
    tmp_path.joinpath("tmp").mkdir()
    more = {"env": {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path)}}
    command(*podman, "load", "--signature-policy", policy, "-i", archive, **more)
    for form in ("docker-archive", "oci-archive"):
        out = tmp_path / f"{form}.tar"
        command(*podman, "save", "--format", form, "-o", out, "docker.io/library/torture:1", **more)
        other = Rooms(tmp_path / form)
        again = loaded(other, out)
        assert again.diff_ids == image.diff_ids
        assert again.config.cmd == image.config.cmd
        assert check(other) == []
        other.close()


def test_through_docker(story: tuple[Rooms, Image, torture.Described], tmp_path: Path, docker_engine: Engine) -> None:
    """dockerd loads what Tare saved, and Tare what dockerd saves: the same layers. What it exports of a container is

    the same tree, but for what Go's tar or Docker leave out: fractions of seconds, all attributes but capabilities.
    """
    rooms, image, wanted = story
    archive = saved(rooms, tmp_path / "one.tar", "torture:1")
    name = docker_engine.unique()
    try:
        docker_engine.docker("load", "-i", str(archive), timeout=STEP_S)
        docker_engine.docker("save", "-o", str(tmp_path / "two.tar"), "torture:1", timeout=STEP_S)
        docker_engine.docker("create", "--name", name, "torture:1", "x")
        docker_engine.docker("export", "-o", str(tmp_path / "export.tar"), name, timeout=STEP_S)
    finally:
        docker_engine.docker("rm", "-f", name, check=False)
        docker_engine.docker("rmi", "-f", "torture:1", check=False)
    other = Rooms(tmp_path / "other")
    again = loaded(other, tmp_path / "two.tar")
    assert (again.id, again.diff_ids) == (image.id, image.diff_ids)
    assert_same(seen(other, again, tmp_path / "loaded"), wanted)
    with (tmp_path / "export.tar").open("rb") as file:
        flat = import_image(other.images, file, reference=parse_reference("flat"))
    found = seen(other, flat, tmp_path / "exported")
    added = (b"/.dockerenv", b"/dev", b"/etc", b"/proc", b"/sys")  # Docker's own mount points
    found = {path: told for path, told in found.items() if not path.startswith(added)}
    assert_same(as_docker_exports(found), as_docker_exports(wanted))
    other.close()


def as_docker_exports(described: torture.Described) -> torture.Described:
    return {
        path: (*told[:3], int(told[3]) // 10**9, *told[4:-1], [pair for pair in told[-1] if "capability" in pair[0]])  # type: ignore[call-overload, attr-defined]
        for path, told in described.items()
    }
