"""fsck, thin and images for several platforms through the API and both command lines; the engine works meanwhile."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tare
from support.deadline import wait_until
from support.engine import Engine, Result
from support.tared import Tared

sys.path.append(str(Path(__file__).parents[1] / "images"))
import archive_files as made
from test_original_layers import ARM, CONFIG, MULTI, ONE, TWO, members, other_gzip, zstd


@pytest.fixture
def own() -> Iterator[Tared]:
    with Tared() as daemon:
        daemon.engine.prepare()
        yield daemon


def load(engine: Engine, tmp_path: Path, content: dict[str, made.Member]) -> None:
    path = tmp_path / "in.tar"
    path.write_bytes(made.archive(content))
    engine.docker("load", "-i", str(path))


def client(engine: Engine) -> Callable[..., Result]:
    """Docker's; ours where that is too old to know an image's platforms."""
    return engine.docker if "--platform" in engine.docker("load", "--help").out else engine.tare_cli


def test_an_image_for_several_platforms(own: Tared, tmp_path: Path) -> None:
    """One row for all; inspect and save take one of them by --platform; save gives back the index; rmi takes all."""
    engine = own.engine
    load(engine, tmp_path, MULTI)
    assert engine.docker("images", "-q", "a").out.split() == [made.sha(CONFIG)[:12]]
    found = json.loads(client(engine)("image", "inspect", "--platform", "linux/arm64", "a").out)[0]
    assert (found["Id"], found["Architecture"]) == (f"sha256:{made.sha(ARM)}", "arm64")
    (row,) = [
        one for one in engine.api.request("GET", "/v1.47/images/json?manifests=1").json if "a:latest" in one["RepoTags"]
    ]
    assert [(one["ImageData"]["Platform"]["architecture"], one["Available"]) for one in row["Manifests"]] == [
        ("arm64", True), ("amd64", True), ("s390x", False),
    ]  # fmt: skip
    assert engine.docker("create", "--platform", "linux/arm64", "--name", engine.unique(), "a", "x").code == 0
    engine.clean()
    for platform, wanted in (("", {name for name in MULTI if name.startswith("blobs/")}), ("linux/arm64", None)):
        out = tmp_path / f"out{len(platform)}.tar"
        client(engine)("save", *(["--platform", platform] if platform else []), "-o", str(out), "a")
        with tarfile.open(out) as tar:
            blobs = {info.name for info in tar if info.isfile() and info.name.startswith("blobs/")}
        assert f"blobs/sha256/{made.sha(ARM)}" in blobs
        if wanted is not None:
            assert blobs == wanted
        else:
            assert f"blobs/sha256/{made.sha(CONFIG)}" not in blobs
    engine.tare_cli("image", "rm", "--force", "a")
    assert made.sha(ARM)[:12] not in engine.docker("images", "-aq").out


def test_fsck_and_thin(own: Tared, tmp_path: Path) -> None:
    """A layer, a container's and a volume's directories are broken, found and repaired; what goes on goes on."""
    engine = own.engine
    runs = engine.start()
    assert "all is well" in engine.tare_cli("system", "fsck").out
    load(engine, tmp_path, members(other_gzip(ONE), zstd(TWO)))
    data = own.data_root
    originals = data / "layers" / "originals"

    def quick() -> bool:
        engine.tare_cli("system", "fsck", "--quick")
        return len(list(originals.iterdir())) <= 1

    wait_until(quick, "what zstd packed is not kept", 20)
    assert [entry.name for entry in originals.iterdir()] == [made.sha(other_gzip(ONE))]
    stopped = engine.docker("create", "--name", engine.unique(), "box").out.strip()
    engine.docker("volume", "create", "kept")
    shutil.rmtree(data / "snapshots" / stopped / "work")
    shutil.rmtree(data / "volumes" / "kept" / "_data")
    (data / "snapshots" / "stranger").mkdir()
    tree = data / "layers" / "layers" / made.sha(TWO) / "tree" / "two"
    tree.write_text("3")
    done = engine.tare_cli("system", "fsck", check=False)
    assert done.code == 1
    for text in ("its directories are missing", "its data is lost", "stranger", "archive now has the digest"):
        assert text in done.out
    assert (data / "snapshots" / "stranger").exists()
    repaired = engine.tare_cli("system", "fsck", "--repair", check=False)
    assert "it is marked" in repaired.out
    refused = engine.docker("create", "a", "x", check=False)
    assert "is damaged" in refused.err
    load(engine, tmp_path, members(other_gzip(ONE), zstd(TWO)))
    assert "all is well" in engine.tare_cli("system", "fsck").out
    assert engine.inspect(runs)["State"]["Running"]
    assert engine.tare_cli("system", "thin", "--force").code == 0
    assert list(originals.iterdir()) == []
    assert "all is well" in engine.tare_cli("system", "fsck").out


def test_fsck_by_the_library(own: Tared) -> None:
    """engine.fsck() tells what is wrong; with repair=True it is mended."""
    with tare.connect(f"unix://{own.engine.socket}") as engine:
        assert engine.fsck() == []
        (own.data_root / "snapshots" / "stranger").mkdir()
        (finding,) = engine.fsck(contents=False)
        assert (finding.kind, finding.subject, finding.repaired) == ("snapshot", "stranger", False)
        assert [one.repaired for one in engine.fsck(repair=True)] == [True]
        assert engine.fsck() == []


def test_load_of_one_platform(own: Tared, tmp_path: Path) -> None:
    """load --platform takes one platform's image out of an archive of several, and says what isn't in it."""
    engine, path = own.engine, tmp_path / "in.tar"
    path.write_bytes(made.archive(MULTI))
    assert client(engine)("load", "--platform", "linux/arm64", "-i", str(path)).out == "Loaded image: a:latest\n"
    found = json.loads(engine.docker("image", "inspect", "a").out)[0]
    assert (found["Id"], found["Architecture"]) == (f"sha256:{made.sha(ARM)}", "arm64")
    ids = {one["Id"] for one in engine.api.request("GET", "/images/json", query={"all": 1}).json}
    assert f"sha256:{made.sha(CONFIG)}" not in ids
    refused = client(engine)("load", "--platform", "linux/riscv64", "-i", str(path), check=False)
    assert refused.code == 1 and "linux/riscv64" in refused.err


def test_a_tag_of_a_tag_has_all_platforms(own: Tared, tmp_path: Path) -> None:
    """docker tag gives the new name the index that the old one stands for."""
    load(own.engine, tmp_path, MULTI)
    own.engine.docker("tag", "a", "b")
    data = own.engine.api.request("GET", "/images/b/get").body
    (tmp_path / "out.tar").write_bytes(data)
    with tarfile.open(tmp_path / "out.tar") as tar:
        blobs = {info.name for info in tar if info.isfile() and info.name.startswith("blobs/")}
    assert blobs == {name for name in MULTI if name.startswith("blobs/")}
