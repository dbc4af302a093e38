"""Images travel as archives: from Tare to Docker and back, through skopeo, again and again, with the same digests."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.busybox import busybox_tar
from support.dockerd import Dockerd
from support.engine import Engine, run
from support.tared import Tared


@pytest.fixture
def engine(any_engine: Engine) -> Iterator[Engine]:
    """Both engines; containers and images that the test made are removed."""
    yield any_engine
    any_engine.clean()
    any_engine.clean_images()


@pytest.fixture
def pair(tared: Tared, dockerd: Dockerd) -> Iterator[tuple[Engine, Engine]]:
    """(ours, the real one); what the test made is removed."""
    engines = (tared.engine, dockerd.engine)
    yield engines
    for each in engines:
        each.clean()
        each.clean_images()


def save(engine: Engine, path: Path, *names: str) -> Path:
    engine.docker("save", "-o", str(path), *names)
    return path


def load(engine: Engine, path: Path) -> str:
    return str(engine.docker("load", "-i", str(path)).out)


def inspect(engine: Engine, name: str) -> Any:
    return json.loads(engine.docker("image", "inspect", name).out)[0]


def layered(engine: Engine, *, commits: int = 2) -> str:
    """An image with commits over the usual one: files added, replaced, deleted, a directory made opaque."""
    name = engine.unique("image")
    base = engine.image
    for number in range(commits):
        script = f"mkdir -p /d{number} && echo {number} > /d{number}/f && rm -rf /home /bin/vi && mkdir /home && "
        script += "ln -sf f /d0/link && ln /d0/f /d0/hard$$ && chmod 4755 /d0/f && mkfifo /d0/fifo || true"
        container = engine.unique()
        engine.docker("run", "--name", container, base, "sh", "-c", script)
        engine.docker("commit", "-a", "me", "-m", f"step {number}", "-c", f"ENV N={number}", container, name)
        engine.docker("rm", container)
        base = name
    return name


def rename(engine: Engine, image_id: str, name: str) -> None:
    engine.docker("tag", image_id, name)


def facts(engine: Engine, name: str) -> tuple[str, Any, Any, list[str]]:
    found = inspect(engine, name)
    return found["Id"], found["RootFS"], found["Config"]["Env"], sorted(found["RepoTags"])


def tree(engine: Engine, name: str) -> str:
    """What is in the image's file system, as a container of it exports it: name, kind, mode, owner, content."""
    container = engine.docker("create", name, "true").out.strip()
    path = f"/containers/{container}/export"
    body = engine.api.request("GET", path).body
    engine.docker("rm", container)
    lines = []
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        for info in tar:
            if info.name.rstrip("/") in (".dockerenv", "dev", "proc", "sys", "etc") or info.name.startswith("dev/"):
                continue
            if info.name in ("etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab"):
                continue
            content = tar.extractfile(info) if info.isreg() else None
            digest = hashlib.sha256(content.read()).hexdigest()[:12] if content else ""
            # Which of several names of a file comes first as the file depends on the order of the walk.
            kind = "file" if info.isreg() or info.islnk() else info.type.decode()
            lines.append(
                f"{info.name.rstrip('/')} {kind} {info.mode & 0o7777:o} {info.uid} {digest if not info.islnk() else ''}"
            )
    return "\n".join(sorted(lines))


def test_round_trip(engine: Engine, tmp_path: Path) -> None:
    """Saved, removed and loaded: the same id, layers, tags and settings; the archive is the same each time."""
    name = layered(engine)
    before = facts(engine, name)
    first = save(engine, tmp_path / "1.tar", name)
    engine.docker("rmi", name)
    assert load(engine, first) == f"Loaded image: {name}:latest\n"
    assert facts(engine, name) == before
    if engine.is_tare:
        assert save(engine, tmp_path / "2.tar", name).read_bytes() == first.read_bytes()


def test_several_images_in_one_archive(engine: Engine, tmp_path: Path) -> None:
    """All tags of a repository, an image by its id, layers shared between them only once."""
    one, two = layered(engine, commits=1), engine.unique("image")
    engine.docker("tag", one, f"{one}:v1")
    engine.docker("tag", engine.image, two)
    path = save(engine, tmp_path / "all.tar", one, two)
    with tarfile.open(path) as tar:
        layers = [info.name for info in tar if info.isreg() and info.size > 1 << 20]
    assert len(layers) == 1  # the busybox layer, which both have
    said = {*load(engine, path).splitlines()}
    assert said == {f"Loaded image: {one}:latest", f"Loaded image: {one}:v1", f"Loaded image: {two}:latest"}
    image_id = inspect(engine, one)["Id"]
    by_id = save(engine, tmp_path / "id.tar", image_id)
    engine.docker("rmi", "-f", image_id)
    assert load(engine, by_id) == f"Loaded image ID: {image_id}\n"
    engine.docker("rmi", image_id)


def test_compressed_archives(engine: Engine, tmp_path: Path) -> None:
    """load takes gzip, bzip2 and xz, from a file and from standard input."""
    name = layered(engine, commits=1)
    path = save(engine, tmp_path / "a.tar", name)
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        packed = tmp_path / f"a.{compress.__module__}"
        packed.write_bytes(compress(path.read_bytes()))
        assert load(engine, packed) == f"Loaded image: {name}:latest\n"
        assert engine.docker("load", input=packed.read_bytes()).out == f"Loaded image: {name}:latest\n"


def test_a_moved_name_is_told(engine: Engine, tmp_path: Path) -> None:
    """Loading over a name that another image has says so."""
    name = layered(engine, commits=1)
    path = save(engine, tmp_path / "a.tar", name)
    engine.docker("rmi", name)
    other = engine.import_image(name, busybox_tar({"extra": b"x"}))
    assert load(engine, path) == (
        f"The image {name}:latest already exists, renaming the old one with ID {other} to empty string\n"
        f"Loaded image: {name}:latest\n"
    )
    engine.docker("rmi", other)


def test_events(engine: Engine, tmp_path: Path) -> None:
    """save and load are told to those who follow the events."""
    name = layered(engine, commits=1)
    image_id = inspect(engine, name)["Id"]
    since = f"{time.time():.9f}"
    load(engine, save(engine, tmp_path / "a.tar", name))
    until = f"{time.time() + 0.1:.9f}"
    form = "{{.Action}} {{.Actor.ID}}"
    found = engine.docker("events", "--since", since, "--until", until, "--filter", "type=image", "--format", form)
    assert [line for line in found.out.splitlines() if line.split()[0] in ("save", "load")] == [
        f"save {image_id}",
        f"load {image_id}",
    ]


def test_what_cannot_be_saved_or_loaded(engine: Engine, tmp_path: Path) -> None:
    """A name that isn't there, and what isn't an archive of images, are errors; an error comes within the stream."""
    assert engine.docker("save", "nope:x", "-o", str(tmp_path / "x"), check=False).code == 1
    assert not (tmp_path / "x").exists()
    done = engine.docker("load", input=b"this is no archive" * 100, check=False)
    assert done.code == 1
    assert done.err


def test_from_tare_to_docker_and_back(pair: tuple[Engine, Engine], tmp_path: Path) -> None:
    """Three round trips through both engines: ids, layers and files stay the same."""
    ours, real = pair
    name = layered(ours)
    wanted = facts(ours, name)
    shown = tree(ours, name)
    assert "d0/hard" in shown
    for number in range(3):
        load(real, save(ours, tmp_path / f"ours{number}.tar", name))
        assert facts(real, name)[:2] == wanted[:2]
        if not number:
            assert tree(real, name) == shown
            assert real.docker("run", "--rm", name, "cat", "/d1/f").out == "1\n"
        ours.docker("rmi", name)
        load(ours, save(real, tmp_path / f"real{number}.tar", name))
        assert facts(ours, name) == wanted
        real.docker("rmi", name)
    assert tree(ours, name) == shown
    assert (tmp_path / "ours0.tar").read_bytes() == (tmp_path / "ours2.tar").read_bytes()


def test_from_docker_to_tare_and_back(pair: tuple[Engine, Engine], tmp_path: Path) -> None:
    """What Docker committed arrives with every digest, runs, and goes back unchanged."""
    ours, real = pair
    name = layered(real)
    wanted = facts(real, name)
    shown = tree(real, name)
    load(ours, save(real, tmp_path / "real.tar", name))
    assert facts(ours, name)[:2] == wanted[:2]
    assert tree(ours, name) == shown
    assert ours.docker("run", "--rm", name, "cat", "/d1/f").out == "1\n"
    real.docker("rmi", name)
    load(real, save(ours, tmp_path / "ours.tar", name))
    assert facts(real, name) == wanted


def test_our_client_on_both_engines(engine: Engine, tmp_path: Path) -> None:
    """`tare save` and `tare load` do what docker's do."""
    name = layered(engine, commits=1)
    before = facts(engine, name)
    path = tmp_path / "a.tar"
    assert engine.tare_cli("save", "-o", str(path), name).out == ""
    engine.tare_cli("rmi", name)
    assert engine.tare_cli("load", "-i", str(path)).out == f"Loaded image: {name}:latest\n"
    assert facts(engine, name) == before
    assert engine.tare_cli("load", "-q", input=path.read_bytes()).out == f"Loaded image: {name}:latest\n"


@pytest.fixture
def skopeo() -> str:
    """The program's path."""
    found = shutil.which("skopeo")
    if found is None:
        pytest.skip("skopeo is not installed")
    return found


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_skopeo_reads_and_writes(tare: Engine, skopeo: str, tmp_path: Path, form: str) -> None:
    """skopeo takes what Tare saves as either form, and Tare what skopeo writes: plain or compressed, same image."""
    name = layered(tare)
    wanted = facts(tare, name)
    path = save(tare, tmp_path / "tare.tar", name)
    source = f"{form}:{path}" + (":latest" if form == "oci-archive" else f":docker.io/library/{name}:latest")
    options = ["--insecure-policy"]
    seen = json.loads(run([skopeo, *options, "inspect", source]).out)
    assert seen["Layers"] == wanted[1]["Layers"]
    assert seen["Env"] == wanted[2]
    for target in ("oci-archive", "docker-archive"):
        made = tmp_path / f"{target}.tar"
        place = f"{target}:{made}:docker.io/library/{name}:again"
        run([skopeo, *options, "copy", source, place])
        assert load(tare, made) == f"Loaded image: {name}:again\n"
        again = facts(tare, f"{name}:again")
        assert again[1:3] == wanted[1:3]
        assert again[0] == wanted[0] or form != target  # between the forms skopeo writes the config anew
        tare.docker("rmi", f"{name}:again")
    tare.clean_images()


def test_an_image_with_the_same_layer_twice(engine: Engine, tmp_path: Path) -> None:
    """Steps that change nothing give the same empty layer again and again: it is stored once, and the image runs."""
    name = engine.unique("image")
    layers = [busybox_tar(), bytes(10240), busybox_tar({"new": b"x"}), bytes(10240)]
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["cat", "/new"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    members = {f"{digest}/layer.tar": layer for digest, layer in zip(digests, layers, strict=True)}
    members["config.json"] = json.dumps(config).encode()
    item = {"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": [f"{one}/layer.tar" for one in digests]}
    members["manifest.json"] = json.dumps([item]).encode()
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert load(engine, tmp_path / "twice.tar") == f"Loaded image: {name}:latest\n"
    assert engine.docker("run", "--rm", name).out == "x"
    again = save(engine, tmp_path / "again.tar", name)
    engine.docker("rmi", name)
    assert load(engine, again) == f"Loaded image: {name}:latest\n"
    assert inspect(engine, name)["RootFS"]["Layers"] == [f"sha256:{digest}" for digest in digests]


def dated(created: str | None) -> bytes:
    """An archive of Docker's with one image, whose configuration and history say when it was made; None: they don't."""
    told = {} if created is None else {"created": created}
    layer = busybox_tar()
    config = {
        **told,
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{**told, "created_by": "a tool"}],
    }
    raw = json.dumps(config).encode()
    manifest = [{"Config": "config.json", "RepoTags": ["tt-dated:1"], "Layers": ["layer.tar"]}]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in (
            ("config.json", raw),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        (None, -62135596800),
        ("0001-01-01T00:00:00Z", -62135596800),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.5Z", -1),
        ("2200-01-01T00:00:00Z", 7258118400),
    ],
)
def test_images_made_at_odd_times(engine: Engine, created: str | None, seconds: int) -> None:
    """Go's zero time, which reproducible builds leave in images, the beginning of 1970, and none: what is shown."""
    engine.docker("load", input=dated(created))
    try:
        listed = engine.api.request("GET", "/images/json", query={"filters": {"reference": ["tt-dated"]}}).json
        history = engine.api.request("GET", "/images/tt-dated:1/history").json
        assert [one["Created"] for one in (*listed, *history)] == [seconds, seconds]
        shown = inspect(engine, "tt-dated:1")["Created"]
        assert shown == ("0001-01-01T00:00:00Z" if seconds == -62135596800 else created)
        assert engine.docker("run", "--rm", "--network", "none", "tt-dated:1").code == 0
    finally:
        engine.docker("rmi", "tt-dated:1")
