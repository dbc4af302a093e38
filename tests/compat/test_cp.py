"""Files in and out of containers: `cp` by both command lines, and the archive endpoints; on both engines."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.engine import Engine, Result

Copy = Callable[..., Result]


@pytest.fixture(params=["docker", "tare"])
def cp(request: pytest.FixtureRequest, engine: Engine) -> Copy:
    """`cp` by Docker's command line and by ours."""

    def copy(*args: str, **options: Any) -> Result:
        if request.param == "docker":
            return engine.docker("cp", *args, **options)
        return engine.tare_cli("cp", *args, **options)

    return copy


@pytest.fixture
def running(engine: Engine, tmp_path: Path) -> str:
    """A running container with a tree to copy and a directory of the host at /vol."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "inside").write_text("of the volume\n")
    script = (
        "mkdir -p /tree/sub /plain /tmp; echo one > /tree/one; echo two > /tree/sub/two; ln -s one /tree/link;"
        "ln /tree/one /tree/hard; ln -s /tree /to-tree; ln -s /nowhere /dangling; mkfifo /tree/fifo;"
        "chmod 4751 /tree/one; chown 12:34 /tree/sub/two; ln -s ../plain /etc/up"
    )
    command = ("sh", "-c", f"{script}; touch /ready; exec sleep 1000")
    container = engine.start("-v", f"{volume}:/vol", "--name", engine.unique(), command=command)
    engine.docker("exec", container, "sh", "-c", "until [ -e /ready ]; do :; done")
    return container


@pytest.fixture(params=["running", "stopped"])
def box(request: pytest.FixtureRequest, engine: Engine, running: str) -> str:
    """The same, running or stopped."""
    if request.param == "stopped":
        engine.docker("kill", running)
        engine.exit_code(running)
    return running


def archive_of(engine: Engine, container: str, path: str) -> list[tarfile.TarInfo]:
    """The members of GET archive."""
    answer = engine.api.request("GET", f"/containers/{container}/archive", query={"path": path})
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        members = tar.getmembers()
    for member in members:
        member.mode &= 0o7777  # Docker has the kind of file in it, too
    return members


def facts_of(engine: Engine, container: str, path: str) -> dict[str, Any]:
    """What HEAD archive tells."""
    answer = engine.api.request("HEAD", f"/containers/{container}/archive", query={"path": path})
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))
    return found


def put(engine: Engine, container: str, path: str, body: bytes, **query: str) -> Any:
    """PUT archive."""
    return engine.api.request("PUT", f"/containers/{container}/archive", body, query={"path": path, **query})


def tar_of(*entries: tuple[str, bytes | None, dict[str, Any]]) -> bytes:
    """A tar of (name, content or None for no regular file, other fields)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, fields in entries:
            entry = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(entry, field, value)
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))
    return made.getvalue()


def read_back(engine: Engine, container: str, path: str) -> bytes:
    """The content of one file in a container."""
    answer = engine.api.request("GET", f"/containers/{container}/archive", query={"path": path})
    assert answer.status == 200, answer
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        member = tar.next()
        assert member is not None
        content = tar.extractfile(member)
        assert content is not None
        return content.read()


def test_head_tells_what_a_path_is(engine: Engine, box: str) -> None:
    """The stat header has name, size, Go's mode, time and where a link leads inside the container."""
    one = facts_of(engine, box, "/tree/one")
    assert (one["name"], one["size"], one["linkTarget"]) == ("one", 4, "")
    assert one["mode"] == 1 << 23 | 0o751
    assert one["mtime"].endswith("Z")
    assert facts_of(engine, box, "tree/")["mode"] == 1 << 31 | 0o755
    assert facts_of(engine, box, "/tree/.")["name"] == "."
    assert facts_of(engine, box, "/")["name"] == "/"
    link = facts_of(engine, box, "/tree/link")
    assert (link["mode"] & 1 << 27, link["linkTarget"], link["size"]) == (1 << 27, "/tree/one", 3)
    assert facts_of(engine, box, "/dangling")["linkTarget"] == "/nowhere"
    assert facts_of(engine, box, "/etc/up")["linkTarget"] == "/plain"
    assert facts_of(engine, box, "/to-tree/")["name"] == "to-tree"
    assert facts_of(engine, box, "/to-tree/")["linkTarget"] == ""
    assert facts_of(engine, box, "/tree/fifo")["mode"] & 1 << 25
    assert facts_of(engine, box, "/vol/inside")["size"] == 14


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/tree", "tree tree/fifo tree/hard tree/link tree/one tree/sub tree/sub/two"),
        (
            "/to-tree/",
            "to-tree to-tree/fifo to-tree/hard to-tree/link to-tree/one to-tree/sub to-tree/sub/two",
        ),
        ("/to-tree", "to-tree"),
        ("/tree/sub/.", ". ./two"),
        ("/tree/one", "one"),
        ("/vol", "vol vol/inside"),
    ],
)
def test_names_in_the_archive(engine: Engine, box: str, path: str, names: str) -> None:
    """Entries begin with the name asked for, links there not followed unless the path ends in a slash."""
    assert [entry.name for entry in archive_of(engine, box, path)] == names.split()


def test_kinds_owners_and_links_in_the_archive(engine: Engine, box: str) -> None:
    """Modes, owners, symbolic and hard links, fifos come out as they are."""
    found = {entry.name: entry for entry in archive_of(engine, box, "/tree")}
    assert found["tree/hard"].mode == 0o4751
    assert found["tree/one"].islnk() and found["tree/one"].linkname == "tree/hard"
    assert (found["tree/sub/two"].uid, found["tree/sub/two"].gid) == (12, 34)
    assert found["tree/link"].issym() and found["tree/link"].linkname == "one"
    assert found["tree/fifo"].isfifo()


def test_errors(engine: Engine, box: str) -> None:
    """Missing paths, no path, and a target that is no directory have Docker's texts."""
    name = engine.inspect(box)["Name"].lstrip("/")
    for method in ("GET", "PUT"):
        answer = engine.api.request(method, f"/containers/{name}/archive", query={"path": "/nope/x"})
        assert (answer.status, answer.json["message"]) == (
            404,
            f"Could not find the file /nope/x in container {name}",
        )
        answer = engine.api.request(method, f"/containers/{name}/archive")
        assert (answer.status, answer.json["message"]) == (400, "bad parameter: pathcannot be empty")
    assert engine.api.request("HEAD", f"/containers/{name}/archive", query={"path": "/nope"}).status == 404
    answer = put(engine, box, "/tree/one", tar_of())
    assert answer.status == (400 if engine.release > 20 else 500)  # 20.10 calls the client's mistakes its own
    assert answer.json["message"] == "extraction point is not a directory"
    answer = engine.api.request("GET", "/containers/nobody/archive", query={"path": "/"})
    assert (answer.status, answer.json["message"]) == (404, "No such container: nobody")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=str)
def test_uploads_may_be_compressed(engine: Engine, box: str, pack: Callable[[bytes], bytes]) -> None:
    """Plain, gzip, bzip2 and xz archives are told by their first bytes."""
    assert put(engine, box, "/plain", pack(tar_of(("made", b"content\n", {})))).status == 200
    assert read_back(engine, box, "/plain/made") == b"content\n"


def test_zstd_upload(tare: Engine) -> None:
    """zstd, too, which Docker 20.10 doesn't know."""
    import zstandard

    container = tare.start()
    assert put(tare, container, "/", zstandard.ZstdCompressor().compress(tar_of(("z", b"z\n", {})))).status == 200
    assert read_back(tare, container, "/z") == b"z\n"


def test_upload_merges_and_replaces(engine: Engine, box: str) -> None:
    """Directories are merged, files replaced (not written through), everything as the archive describes it."""
    body = tar_of(
        ("sub/", None, {"type": tarfile.DIRTYPE, "mode": 0o700, "uid": 5, "gid": 6}),
        ("sub/three", b"three\n", {"mode": 0o751, "uid": 7, "gid": 8, "mtime": 1000000000}),
        ("one", b"new\n", {"mode": 0o644}),
        ("soft", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/../tree/one"}),
        (
            "second",
            None,
            {"type": tarfile.LNKTYPE, "linkname": "sub/three", "mode": 0o751, "uid": 7, "gid": 8, "mtime": 10**9},
        ),
        ("pipe", None, {"type": tarfile.FIFOTYPE, "mode": 0o600}),
        ("null", None, {"type": tarfile.CHRTYPE, "mode": 0o666, "devmajor": 1, "devminor": 3}),
        ("d" * 120 + "/" + "f" * 200, b"long\n", {}),
    )
    assert put(engine, box, "/to-tree", body).status == 200
    assert read_back(engine, box, "/tree/hard") == b"one\n"
    found = {entry.name: entry for entry in archive_of(engine, box, "/tree")}
    assert found["tree/sub"].mode == 0o700 and found["tree/sub"].uid == 5
    assert found["tree/sub/two"].uid == 12
    three = next(entry for entry in found.values() if entry.name in ("tree/sub/three", "tree/second") and entry.isreg())
    assert (three.mode, three.uid, three.gid, three.mtime) == (0o751, 7, 8, 1000000000)
    assert read_back(engine, box, "/tree/one") == b"new\n"
    assert found["tree/soft"].linkname == "/etc/../tree/one"
    assert found["tree/pipe"].isfifo()
    assert (found["tree/null"].devmajor, found["tree/null"].devminor) == (1, 3)
    assert f"tree/{'d' * 120}/{'f' * 200}" in found


def test_no_overwrite_of_directories_by_files(engine: Engine, box: str) -> None:
    """With noOverwriteDirNonDir neither takes the other's place; without it, both do."""
    file, directory = tar_of(("sub", b"x\n", {})), tar_of(("one", None, {"type": tarfile.DIRTYPE, "mode": 0o755}))
    answer = put(engine, box, "/tree", file, noOverwriteDirNonDir="true")
    assert answer.status >= 400 and "cannot overwrite directory" in answer.json["message"]
    answer = put(engine, box, "/tree", directory, noOverwriteDirNonDir="1")
    assert answer.status >= 400 and "cannot overwrite non-directory" in answer.json["message"]
    assert facts_of(engine, box, "/tree/sub")["mode"] & 1 << 31
    assert put(engine, box, "/tree", file).status == 200
    assert put(engine, box, "/tree", directory).status == 200
    assert read_back(engine, box, "/tree/sub") == b"x\n"
    assert facts_of(engine, box, "/tree/one")["mode"] & 1 << 31


def test_volumes_are_seen_and_kept(engine: Engine, box: str, tmp_path: Path) -> None:
    """What is copied below a mounted directory is on the host, running or not."""
    assert put(engine, box, "/vol", tar_of(("new", b"new\n", {}))).status == 200
    assert (tmp_path / "volume" / "new").read_text() == "new\n"
    assert read_back(engine, box, "/vol/inside") == b"of the volume\n"
    assert put(engine, box, "/", tar_of(("vol", b"file\n", {}))).status != 200
    assert (tmp_path / "volume" / "inside").exists() or not engine.is_tare


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_read_only(engine: Engine, tmp_path: Path, state: str) -> None:
    """A read-only root and a read-only volume refuse copies; a writable volume of a read-only root takes them."""
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
    flags = ("--read-only", "-v", f"{tmp_path}/ro:/ro:ro", "-v", f"{tmp_path}/rw:/rw")
    container = engine.start(*flags)
    if state == "stopped":
        engine.docker("kill", container)
        engine.exit_code(container)
    body = tar_of(("x", b"x\n", {}))
    answer = put(engine, container, "/bin", body)
    assert answer.json["message"] == "container rootfs is marked read-only"
    assert answer.status == (403 if engine.is_tare else 400 if engine.release > 20 else 500)  # the API says 403
    answer = put(engine, container, "/ro", body)
    assert answer.json["message"] == "mounted volume is marked read-only"
    assert put(engine, container, "/rw", body).status == 200
    assert (tmp_path / "rw" / "x").read_text() == "x\n"
    assert not list((tmp_path / "ro").iterdir())


def test_created_container_takes_files_before_its_start(engine: Engine) -> None:
    """A container that never ran can be filled, and finds the files when it starts."""
    created = engine.create({"Cmd": ["cat", "/given"]}).json["Id"]
    assert put(engine, created, "/", tar_of(("given", b"before\n", {}))).status == 200
    engine.docker("start", created)
    engine.exit_code(created)
    assert engine.logs(created) == "before\n"


def test_created_container_has_its_mounts(engine: Engine, tmp_path: Path) -> None:
    """Before the first start, too: missing host directories of -v are made, volumes of any kind are reached."""
    (tmp_path / "named").mkdir()
    volume = engine.unique("volume")
    options = {"type": "none", "o": "bind", "device": str(tmp_path / "named")}
    body = {"Name": volume, "Driver": "local", "DriverOpts": options}
    assert engine.api.request("POST", "/volumes/create", body).status == 201
    binds = [f"{tmp_path}/missing:/missing", f"{volume}:/named"]
    created = engine.create({"Cmd": ["true"], "HostConfig": {"Binds": binds}}).json["Id"]
    for place in ("missing", "named"):
        assert put(engine, created, f"/{place}", tar_of(("file", b"x\n", {}))).status == 200
        assert (tmp_path / place / "file").read_text() == "x\n"
    engine.docker("rm", created)
    engine.docker("volume", "rm", volume)


@pytest.mark.parametrize("flags", [(), ("--read-only",)])
def test_created_container_is_read_before_its_start(engine: Engine, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Also where nothing has made what its volumes and binds are mounted on: `cp`'s way to a volume's files."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("x\n")
    binds = ("-v", f"{tmp_path}/data:/not/there", "-v", f"{tmp_path}/data/file:/nor/this", "-v", "/volume")
    created = engine.docker("create", *flags, *binds, engine.image, "true").out.strip()
    assert facts_of(engine, created, "/")["name"] == "/"
    assert read_back(engine, created, "/not/there/file") == b"x\n"
    assert read_back(engine, created, "/nor/this") == b"x\n"
    assert names_in(engine, created, "/volume") == ["volume"]
    engine.docker("start", created)
    assert engine.exit_code(created) == 0


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────────────


def local_tree(at: Path) -> Path:
    """A tree to copy in."""
    (at / "src" / "deep").mkdir(parents=True)
    (at / "src" / "file").write_text("file\n")
    (at / "src" / "deep" / "er").write_text("deeper\n")
    (at / "src" / "soft").symlink_to("file")
    os.link(at / "src" / "file", at / "src" / "twin")
    os.chmod(at / "src" / "file", 0o640)
    return at / "src"


def names_in(engine: Engine, container: str, path: str) -> list[str]:
    return [entry.name for entry in archive_of(engine, container, path)]


def test_copy_out_a_file(cp: Copy, running: str, tmp_path: Path) -> None:
    """To an existing directory, to a new name, over a file."""
    (tmp_path / "dir").mkdir()
    cp(f"{running}:/tree/one", str(tmp_path / "dir"))
    assert (tmp_path / "dir" / "one").read_text() == "one\n"
    assert stat.S_IMODE((tmp_path / "dir" / "one").stat().st_mode) == 0o4751
    cp(f"{running}:tree/sub/two", str(tmp_path / "new"))
    assert (tmp_path / "new").read_text() == "two\n"
    cp(f"{running}:/tree/one", str(tmp_path / "new"))
    assert (tmp_path / "new").read_text() == "one\n"
    result = cp(f"{running}:/tree/one", str(tmp_path / "absent") + "/", check=False)
    assert result.code == 1 and "no such directory" in result.err
    result = cp(f"{running}:/tree/one", str(tmp_path / "a" / "b"), check=False)
    assert result.code == 1 and f'invalid output path: directory "{tmp_path}/a" does not exist' in result.err


def test_copy_out_a_directory(cp: Copy, running: str, tmp_path: Path) -> None:
    """Into an existing directory under its name or, with `/.`, its content; to a new name; never onto a file."""
    (tmp_path / "dir").mkdir()
    cp(f"{running}:/tree", str(tmp_path / "dir"))
    assert sorted(os.listdir(tmp_path / "dir" / "tree")) == "fifo hard link one sub".split()
    assert os.readlink(tmp_path / "dir" / "tree" / "link") == "one"
    assert os.path.samefile(tmp_path / "dir" / "tree" / "one", tmp_path / "dir" / "tree" / "hard")
    cp(f"{running}:/tree/.", str(tmp_path / "dir"))
    assert (tmp_path / "dir" / "sub" / "two").read_text() == "two\n"
    cp(f"{running}:/tree/sub", str(tmp_path / "made"))
    assert os.listdir(tmp_path / "made") == ["two"]
    cp(f"{running}:/tree/sub/.", str(tmp_path / "content"))
    assert os.listdir(tmp_path / "content") == ["two"]
    (tmp_path / "file").write_text("")
    result = cp(f"{running}:/tree", str(tmp_path / "file"), check=False)
    assert result.code == 1 and "cannot copy directory" in result.err


def test_copy_out_links(cp: Copy, running: str, tmp_path: Path) -> None:
    """A link is copied as a link; with -L what it leads to, under the link's name."""
    cp(f"{running}:/tree/link", str(tmp_path))
    assert os.readlink(tmp_path / "link") == "one"
    cp("-L", f"{running}:/to-tree", str(tmp_path))
    assert (tmp_path / "to-tree" / "one").read_text() == "one\n"
    cp("-L", f"{running}:/tree/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "one\n"


def test_copy_out_as_a_stream(engine: Engine, running: str) -> None:
    """`-` writes the tar to stdout, with both clients the same."""
    one, two = (client("cp", f"{running}:/tree", "-").out for client in (engine.docker, engine.tare_cli))
    assert one == two
    with tarfile.open(fileobj=io.BytesIO(one.encode())) as tar:
        assert tar.getnames()[0] == "tree"


def test_copy_in_a_file(engine: Engine, cp: Copy, running: str, tmp_path: Path) -> None:
    """Into a directory, to a new name, over a file, through a link at the destination."""
    source = local_tree(tmp_path)
    cp(str(source / "file"), f"{running}:/plain")
    assert read_back(engine, running, "/plain/file") == b"file\n"
    entry = archive_of(engine, running, "/plain/file")[0]
    assert entry.mode == 0o640
    cp(str(source / "file"), f"{running}:/plain/renamed")
    assert read_back(engine, running, "/plain/renamed") == b"file\n"
    cp(str(source / "file"), f"{running}:/tree/link")
    assert read_back(engine, running, "/tree/one") == b"file\n"
    assert facts_of(engine, running, "/tree/link")["linkTarget"] == "/tree/one"
    cp(str(source / "file"), f"{running}:/to-tree")
    assert read_back(engine, running, "/tree/file") == b"file\n"
    result = cp(str(source / "file"), f"{running}:/absent/", check=False)
    assert result.code == 1 and "no such directory" in result.err
    result = cp(str(source / "file"), f"{running}:/absent/x", check=False)
    assert result.code == 1 and "Could not find the file /absent in container" in result.err
    put(engine, running, "/plain", tar_of(("null", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})))
    result = cp(str(source / "file"), f"{running}:/plain/null", check=False)
    assert result.code == 1 and "must be a directory or a regular file: got a device" in result.err


def test_copy_in_a_directory(engine: Engine, cp: Copy, running: str, tmp_path: Path) -> None:
    """Under its name, its content with `/.`, as a new name; links stay links, in every direction."""
    source = local_tree(tmp_path)
    cp(str(source), f"{running}:/plain")
    assert (
        sorted(names_in(engine, running, "/plain/src")) == "src src/deep src/deep/er src/file src/soft src/twin".split()
    )
    found = {entry.name: entry for entry in archive_of(engine, running, "/plain/src")}
    assert found["src/soft"].linkname == "file"
    assert found["src/twin"].linkname == "src/file"
    cp(f"{source}/.", f"{running}:/plain")
    assert read_back(engine, running, "/plain/deep/er") == b"deeper\n"
    cp(str(source), f"{running}:/new")
    assert sorted(names_in(engine, running, "/new")) == "new new/deep new/deep/er new/file new/soft new/twin".split()
    cp(f"{source}/.", f"{running}:/newer")
    assert read_back(engine, running, "/newer/deep/er") == b"deeper\n"
    cp(f"{source}/soft", f"{running}:/plain/as-link")
    assert facts_of(engine, running, "/plain/as-link")["mode"] & 1 << 27
    cp("-L", f"{source}/soft", f"{running}:/plain/as-file")
    assert read_back(engine, running, "/plain/as-file") == b"file\n"
    result = cp(str(source), f"{running}:/tree/one", check=False)
    assert result.code == 1 and "cannot copy directory" in result.err
    result = cp(str(source / "nothing"), f"{running}:/", check=False)
    assert result.code == 1 and "no such file or directory" in result.err


def test_copy_in_a_stream(engine: Engine, cp: Copy, running: str) -> None:
    """`-` unpacks stdin into a directory, and needs one."""
    cp("-", f"{running}:/plain", input=tar_of(("streamed", b"yes\n", {})))
    assert read_back(engine, running, "/plain/streamed") == b"yes\n"
    result = cp("-", f"{running}:/tree/one", input=tar_of(), check=False)
    assert result.code == 1 and "must be a directory" in result.err


def test_ownership_of_what_is_copied_in(engine: Engine, cp: Copy, tmp_path: Path) -> None:
    """Owners come from the files; with -a they are the container's user."""
    (tmp_path / "mine").write_text("x")
    os.chown(tmp_path / "mine", 4321, 8765)
    container = engine.start("--user", "1234:77")
    cp(str(tmp_path / "mine"), f"{container}:/plain")
    entry = archive_of(engine, container, "/plain")[0]
    assert (entry.uid, entry.gid) == (4321, 8765)
    if engine.is_tare:  # 20.10 looks users up on the host
        cp("-a", str(tmp_path / "mine"), f"{container}:/archived")
        entry = archive_of(engine, container, "/archived")[0]
        assert (entry.uid, entry.gid) == (1234, 77)


def test_wrong_arguments(cp: Copy) -> None:
    """Two containers, none, and empty arguments are refused in Docker's words."""
    assert "copying between containers is not supported" in cp("a:/x", "b:/y", check=False).err
    assert "must specify at least one container source" in cp("./a", "./b", check=False).err
    assert "source can not be empty" in cp("", "b:/x", check=False).err
    assert "No such container: nobody" in cp("nobody:/x", "/tmp", check=False).err


def test_big_file_survives_both_ways(engine: Engine, tmp_path: Path) -> None:
    """200 MB in and out keep their digest."""
    big = tmp_path / "big"
    block = os.urandom(1 << 20)
    with big.open("wb") as file:
        for number in range(200):
            file.write(number.to_bytes(4, "big") + block[4:])
    container = engine.start()
    copy = engine.tare_cli if engine.is_tare else engine.docker
    copy("cp", str(big), f"{container}:/big", timeout=60)
    copy("cp", f"{container}:/big", str(tmp_path / "back"), timeout=60)
    digests = []
    for path in (big, tmp_path / "back"):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    assert digests[0] == digests[1]
