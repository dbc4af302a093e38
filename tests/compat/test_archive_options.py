"""import, save, load, export and commit: each option of the command line and each parameter of the API by its effect.

What else shows them: compressions, --change, --message of import, commit's --author, --message and --change in
test_images.py; several images, standard input and moved names in test_save_load.py; redirects, compression and failures
of an address in tests/travel/test_import_export.py; platforms in tests/images/test_image_archives.py.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.busybox import busybox_tar
from support.deadline import wait_until
from support.engine import Engine


@pytest.fixture(autouse=True)
def images_removed(engine: Engine) -> Iterator[None]:
    """What a test makes goes."""
    yield
    engine.clean()
    engine.clean_images()


def inspect(engine: Engine, name: str) -> Any:
    return json.loads(engine.docker("image", "inspect", name).out)[0]


def names_in(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name.rstrip("/"): info for info in tar}


# -- import ------------------------------------------------------------------------------------------------------------


def test_import_of_a_file_for_a_platform(engine: Engine, tmp_path: Path) -> None:
    """FILE REPO:TAG and --platform; -c and -m are short for --change and --message."""
    path, reference = tmp_path / "root.tar.gz", engine.unique("image")
    path.write_bytes(gzip.compress(busybox_tar()))
    flags = ("--platform", "linux/arm64", "-c", "ENV A=1", "-m", "short")
    said = engine.docker("import", *flags, str(path), f"{reference}:arm").out.strip()
    image = inspect(engine, f"{reference}:arm")
    assert (image["Id"], image["Os"]) == (said, "linux")
    assert image["Architecture"] == ("arm64" if engine.release > 20 else "amd64")  # Docker 20.10 heeds only the system
    assert "A=1" in image["Config"]["Env"]
    assert engine.docker("history", "--format", "{{.Comment}}", said).out == "short\n"


def test_import_without_a_name(engine: Engine) -> None:
    """The image has only its id."""
    said = engine.docker("import", "-", input=busybox_tar()).out.strip()
    assert inspect(engine, said)["RepoTags"] == []
    engine.docker("rmi", said)


def test_parameters_of_an_import(engine: Engine) -> None:
    """fromSrc=-, repo, tag, message, changes (repeated) and platform of POST /images/create."""
    repo = engine.unique("image")
    query = {"fromSrc": "-", "repo": repo, "tag": "v", "message": "said", "changes": ['CMD ["x"]', "LABEL a=b"]}
    answer = engine.api.request("POST", "/images/create", busybox_tar(), query={**query, "platform": "linux/amd64"})
    told = json.loads(answer.body.splitlines()[-1])["status"]
    image = inspect(engine, f"{repo}:v")
    assert told == image["Id"]
    assert image["Config"]["Cmd"] == ["x"] and image["Config"]["Labels"] == {"a": "b"}
    assert image["Architecture"] == "amd64"
    assert engine.docker("history", "--format", "{{.Comment}}", repo + ":v").out == "said\n"


@pytest.fixture
def address(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """The address of a gzipped tar, where the engine can reach it."""
    (tmp_path / "root.tar.gz").write_bytes(gzip.compress(busybox_tar()))
    program = (
        "import functools, http.server as h\n"
        f"handler = functools.partial(h.SimpleHTTPRequestHandler, directory={str(tmp_path)!r})\n"
        "s = h.HTTPServer(('127.0.0.1', 0), handler)\n"
        "print(s.server_port, flush=True)\n"
        "s.serve_forever()"
    )
    argv = [*engine.enter, sys.executable, "-c", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/root.tar.gz"
        finally:
            server.terminate()


def test_import_from_an_address(engine: Engine, address: str) -> None:
    """The engine fetches it; the history says from where."""
    reference = engine.unique("image")
    said = engine.docker("import", address, reference).out.split()[-1]
    assert inspect(engine, reference)["Id"] == said
    assert engine.docker("history", "--format", "{{.Comment}}", said).out == f"Imported from {address}\n"
    assert engine.docker("run", "--rm", "--network", "none", reference, "echo", "runs").out == "runs\n"


# -- save and load -----------------------------------------------------------------------------------------------------


def test_save_to_a_file_and_to_standard_output(engine: Engine, tmp_path: Path) -> None:
    """--output writes what would go to standard output; both load."""
    name = engine.unique("image")
    engine.docker("tag", engine.image, name)
    path = tmp_path / "out.tar"
    engine.docker("save", "--output", str(path), name)
    done = subprocess.run(engine.argv("save", name), capture_output=True, check=True, timeout=100)
    assert {*names_in(done.stdout)} == {*names_in(path.read_bytes())}
    engine.docker("rmi", name)
    assert engine.docker("load", "-i", str(path)).out.endswith(f"Loaded image: {name}:latest\n")


def test_parameters_of_save(engine: Engine) -> None:
    """names is repeated; /images/{name}/get has one."""
    one, two = engine.unique("image"), engine.unique("image")
    for name in (one, two):
        engine.docker("tag", engine.image, f"{name}:v")
    both = engine.api.request("GET", "/images/get", query={"names": [f"{one}:v", f"{two}:v"]}).body
    single = engine.api.request("GET", f"/images/{one}:v/get").body
    for data, wanted in ((both, [f"{one}:v", f"{two}:v"]), (single, [f"{one}:v"])):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            file = tar.extractfile("manifest.json")
            assert file is not None
            (item,) = json.load(file)
        assert sorted(item["RepoTags"]) == sorted(wanted)


@pytest.mark.parametrize("quiet", [0, 1])
def test_a_quiet_load_tells_no_progress(engine: Engine, quiet: int) -> None:
    """quiet=1 (--quiet) leaves the last line, quiet=0 tells how each new layer goes."""
    name = engine.unique("image")
    engine.docker("import", "-", name, input=busybox_tar({"own": engine.unique().encode() * 50_000}))
    data = engine.api.request("GET", f"/images/{name}/get").body
    engine.docker("rmi", name)
    answer = engine.api.request("POST", "/images/load", data, query={"quiet": quiet})
    told = [json.loads(line) for line in answer.body.splitlines()]
    assert told[-1]["stream"] == f"Loaded image: {name}:latest\n"
    assert any("progressDetail" in line for line in told) == (not quiet)


# -- export ------------------------------------------------------------------------------------------------------------


def test_export_to_a_file_and_to_standard_output(engine: Engine, tmp_path: Path) -> None:
    """-o and standard output bring the same tree, of a running container as of one that never ran; import takes it."""
    never = engine.docker("create", "--network", "none", engine.image, "true").out.strip()
    running = engine.start(command=["sh", "-c", "echo made > /made; sleep 1000"])
    wait_until(lambda: engine.docker("exec", running, "test", "-s", "/made", check=False).code == 0, "it is made")
    for container, has in ((never, False), (running, True)):
        path = tmp_path / container[:12]
        engine.docker("export", "-o", str(path), container)
        done = subprocess.run(engine.argv("export", container), capture_output=True, check=True, timeout=100)
        found = names_in(path.read_bytes())
        assert {*found} == {*names_in(done.stdout)}
        assert ("made" in found) == has and "bin/busybox" in found
        assert not [name for name in found if name.startswith(("proc/", "sys/"))]
        reference = engine.unique("image")
        engine.docker("import", str(path), reference)
        run = engine.docker("run", "--rm", "--network", "none", reference, "/bin/cat", "/made", check=False)
        assert (run.out == "made\n") == has


# -- commit ------------------------------------------------------------------------------------------------------------

WRITER = "i=0; while true; do i=$((i+1)); echo $i > /a; echo $i > /b; done"


@pytest.mark.parametrize("pause", ["1", "0"])
def test_commit_with_and_without_a_pause(engine: Engine, pause: str) -> None:
    """pause=1: the image is of one moment, though large files take a while; the program goes on afterwards, in both."""
    container = engine.start(flags=["--network", "none"], command=["sh", "-c", WRITER])
    engine.docker("exec", container, "dd", "if=/dev/zero", "of=/Between", "bs=1M", "count=20")
    query = {"container": container, "repo": engine.unique("image"), "pause": pause}
    assert engine.api.request("POST", "/commit", {}, query=query).status == 201
    argv = ("run", "--rm", "--network", "none", query["repo"], "cat", "/a", "/b")
    numbers = [int(word) for word in engine.docker(*argv).out.split()]
    if pause == "1":
        assert len(numbers) < 2 or numbers[0] - numbers[1] in (0, 1)
    before = engine.docker("exec", container, "cat", "/a").out
    wait_until(lambda: engine.docker("exec", container, "cat", "/a").out != before, "the program goes on")


def test_parameters_of_a_commit(engine: Engine) -> None:
    """repo, tag, author, comment, repeated changes; the body wins over the container's settings, changes over both."""
    container = engine.start(flags=["-e", "KEPT=1", "-e", "A=1", "--network", "none", "-l", "mine=1"])
    repo = engine.unique("image")
    query = {"container": container, "repo": repo, "tag": "v", "author": "Ann <a@b>", "comment": "why"}
    body = {"Env": ["A=2", "B=2"], "Labels": {"theirs": "2"}, "Cmd": ["from", "body"], "User": "1000"}
    changes = ["ENV B=3", "WORKDIR /w"]
    answer = engine.api.request("POST", "/commit", body, query={**query, "changes": changes})
    assert answer.status == 201
    image = inspect(engine, f"{repo}:v")
    assert image["Id"] == answer.json["Id"] and image["Author"] == "Ann <a@b>" and image["Comment"] == "why"
    config = image["Config"]
    assert {"KEPT=1", "A=2", "B=3"} <= set(config["Env"]) and "A=1" not in config["Env"]
    assert config["Labels"] == {"mine": "1", "theirs": "2"}
    assert (config["Cmd"], config["User"], config["WorkingDir"]) == (["from", "body"], "1000", "/w")


def test_both_spellings_of_a_commit_without_pause(engine: Engine) -> None:
    """--pause=false of all clients so far, and -a, -m and -c for short."""
    container = engine.start(flags=["--network", "none"])
    reference = engine.unique("image")
    engine.docker("commit", "--pause=false", "-a", "Ann", "-m", "why", "-c", "ENV X=1", container, reference)
    image = inspect(engine, reference)
    assert (image["Author"], image["Comment"]) == ("Ann", "why") and "X=1" in image["Config"]["Env"]
    ours = engine.tare_cli("commit", "--no-pause", container, f"{reference}:2").out.strip()
    assert inspect(engine, f"{reference}:2")["Id"] == ours
