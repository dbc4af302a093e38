"""Directories and addresses become images in one step; any version of an image becomes a finished tar again."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine import Engine


def tree(root: Path, *, sparse: bool) -> None:
    """One of each kind of thing that a directory can hold."""
    (root / "etc").mkdir(mode=0o751)
    (root / "etc" / "f").write_bytes(b"content")
    os.chown(root / "etc" / "f", 12, 34)
    os.link(root / "etc" / "f", root / "etc" / "again")
    os.symlink("/nowhere", root / "link")
    os.mkfifo(root / "fifo", 0o600)
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.setxattr(root / "etc" / "f", "user.word", b"a\0\xff")
    os.setxattr(root / "etc" / "f", "security.capability", bytes.fromhex("0100000202000000000000000000000000000000"))
    (root / os.fsdecode(b"\xff\xfe odd")).write_bytes(b"")
    (root / ("long" * 60)).mkdir()
    os.utime(root / "etc" / "f", ns=(1, 1_500_000_000_123_456_789))
    os.utime(root / "link", ns=(1, -1_500_000_000), follow_symlinks=False)
    with (root / "sparse").open("wb") as file:
        for offset in (0, 5 << (30 if sparse else 20)):
            file.seek(offset)
            file.write(b"end")


def entries(archive: bytes) -> dict[str, tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        return {
            one.name: (
                one.type,
                one.mode & 0o7777,
                one.uid,
                one.gid,
                one.linkname,
                one.devmajor,
                one.devminor,
                one.size,
            )
            for one in tar
        }


def test_a_directory_becomes_an_image(engine: Engine, tmp_path: Path) -> None:
    """Owners, modes, links, devices and odd names, by Tare and by Docker's import."""
    tree(tmp_path, sparse=False)
    name = engine.unique("dir")
    engine.tare_cli("import", "-c", "CMD true", str(tmp_path), name)
    container = engine.docker("create", name).out.strip()
    found = entries(engine.api.request("GET", f"/containers/{container}/export").body)
    one, other = sorted(("etc/f", "etc/again"), key=lambda each: found[each][0] == tarfile.LNKTYPE)
    assert found[one] == (tarfile.REGTYPE, 0o644, 12, 34, "", 0, 0, 7)
    assert found[other][0] == tarfile.LNKTYPE and found[other][4] == one
    assert found["etc"][:2] == (tarfile.DIRTYPE, 0o751)
    assert (found["null"][0], found["null"][5:7]) == (tarfile.CHRTYPE, (1, 3))
    assert (found["fifo"][0], found["link"][4]) == (tarfile.FIFOTYPE, "/nowhere")
    assert found["sparse"][7] == (5 << 20) + 3
    assert "long" * 60 in found and os.fsdecode(b"\xff\xfe odd") in found
    engine.docker("rm", container)
    engine.docker("rmi", name)


def test_a_directory_named_by_a_link(tare: Engine, tmp_path: Path) -> None:
    """The root is the directory, not the link; links below stay links."""
    (tmp_path / "real").mkdir(mode=0o700)
    os.symlink("/nowhere", tmp_path / "real" / "link")
    os.symlink("real", tmp_path / "named")
    name = tare.unique("dir")
    tare.tare_cli("import", "-c", "CMD true", str(tmp_path / "named"), name)
    container = tare.docker("create", name).out.strip()
    found = entries(tare.api.request("GET", f"/containers/{container}/export").body)
    assert found["link"][4] == "/nowhere"
    tare.docker("rm", container)
    tare.docker("rmi", name)


def test_nothing_of_a_directory_is_lost(near: Engine, tmp_path: Path) -> None:
    """Times to the nanosecond, also before 1970, attributes with any bytes, holes of gigabytes, names of any bytes."""
    tree(tmp_path, sparse=True)
    name = near.unique("dir")
    near.tare_cli("import", "-c", "CMD true", str(tmp_path), name)
    container = near.docker("create", name).out.strip()
    lower = near.api.request("GET", f"/containers/{container}/json").json["GraphDriver"]["Data"]["LowerDir"]
    root = Path(lower.split(":")[0])
    status = os.lstat(root / "etc" / "f")
    assert (status.st_uid, status.st_gid, status.st_nlink) == (12, 34, 2)
    assert status.st_mtime_ns == 1_500_000_000_123_456_789
    assert os.lstat(root / "link").st_mtime_ns == -1_500_000_000
    assert os.getxattr(root / "etc" / "f", "user.word") == b"a\0\xff"
    assert len(os.getxattr(root / "etc" / "f", "security.capability")) == 20
    assert os.lstat(root / "null").st_rdev == os.makedev(1, 3)
    sparse = os.lstat(root / "sparse")
    assert (sparse.st_size, sparse.st_blocks < 64) == ((5 << 30) + 3, True)
    assert sorted(os.listdir(os.fsencode(root))) == sorted(os.listdir(os.fsencode(tmp_path)))


def test_equal_directories_give_equal_layers(near: Engine, tmp_path: Path) -> None:
    """The order in which the file system lists names doesn't count; what is excluded isn't in."""
    for place, order in (("a", "xyz"), ("b", "zxy")):
        (tmp_path / place).mkdir()
        for name in (*order, f"{place}.pyc"):
            (tmp_path / place / name).write_text(name)
        for name in (*order, "."):
            os.utime(tmp_path / place / name, (1, 1))
    made = []
    for place in "ab":
        near.tare_cli("import", "--exclude", "*.pyc", str(tmp_path / place), f"{near.unique('dir')}:{place}")
    for image in near.api.request("GET", "/images/json").json:
        if image["RepoTags"][0].endswith((":a", ":b")):
            made.append(near.api.request("GET", f"/images/{image['Id']}/json").json["RootFS"]["Layers"])
    assert len(made) == 2 and made[0] == made[1]


def test_any_version_becomes_a_tar(near: Engine, tmp_path: Path) -> None:
    """Of an image by name and id, of NAME@COMMIT for what the name was or came from, and of a container as ever."""
    name = near.unique("image")
    base = near.docker("create", near.image, "true").out.strip()
    for text in ("one", "two"):
        (tmp_path / "f").write_text(text)
        near.docker("cp", str(tmp_path / "f"), f"{base}:/f")
        near.docker("commit", base, f"{name}:v")
    log = near.api.request("GET", f"/tare/log?image={name}:v").json
    second, first = (one["Id"][7:19] for one in log[:2])
    for ref, wanted in (
        (f"{name}:v", "two"),
        (second, "two"),
        (f"{name}:v@{first}", "one"),
        (f"{name}@{first}", "one"),
    ):
        target = tmp_path / "out.tar"
        near.tare_cli("export", "-o", str(target), ref)
        with tarfile.open(target) as tar:
            member = tar.extractfile("f")
            assert member is not None and member.read().decode() == wanted, ref
            assert "bin/busybox" in tar.getnames()
    near.tare_cli("export", "-o", str(target), base)
    assert "f" in entries(target.read_bytes())
    for ref, text in ((f"{name}@000000", f"No such image: {name}@000000"), ("nope", "No such container: nope")):
        assert text in near.tare_cli("export", "-o", str(target), ref, check=False).err


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Pages)
        self.given_up = threading.Event()


class _Pages(http.server.BaseHTTPRequestHandler):
    archive = b""
    server: _Server
    current: _Server

    def do_GET(self) -> None:
        if self.path == "/root.tar":
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.archive)))
            self.end_headers()
            self.wfile.write(self.archive)
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.archive)))
            self.end_headers()
            self.wfile.write(self.archive[: len(self.archive) // 2])
        elif self.path == "/trickle":
            self.send_response(200)
            self.end_headers()
            try:
                while not self.server.given_up.wait(0.05):
                    self.wfile.write(b"\0" * 512)
            except OSError:
                self.server.given_up.set()
        elif self.path == "/huge":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 50))
            self.end_headers()
        elif self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pages(near: Engine) -> Iterator[str]:
    """An HTTP server on this machine with a root file system."""
    container = near.docker("create", near.image, "true").out.strip()
    _Pages.archive = near.api.request("GET", f"/containers/{container}/export").body
    server = _Pages.current = _Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with contextlib.closing(server.socket):
        yield f"http://127.0.0.1:{server.server_port}"
        server.given_up.set()
        server.shutdown()
        thread.join()


def test_a_url_becomes_an_image(near: Engine, pages: str) -> None:
    """The engine fetches it, also after a redirect; the history says from where."""
    name = near.unique("url")
    near.docker("import", "-c", 'CMD ["sh"]', f"{pages}/to//root.tar", name)
    assert near.docker("run", "--rm", name, "echo", "works").out == "works\n"
    assert json.loads(near.docker("image", "inspect", name).out)[0]["Comment"] == f"Imported from {pages}/to//root.tar"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/nothing", "Got HTTP status code >= 400: 404"),
        ("/to/file:///etc/passwd", "is not allowed"),
        ("/to/ftp://127.0.0.1/x", "only http:// and https:// addresses can be"),
        ("/huge", "is larger than"),
        ("/cut", "ended after"),
    ],
)
def test_what_is_not_to_be_had_is_told(near: Engine, pages: str, path: str, text: str) -> None:
    """Missing pages, other schemes behind a redirect, sizes beyond the limit, answers that break off; nothing stays."""
    before = near.api.request("GET", "/images/json?all=1").json
    assert text in near.tare_cli("import", f"{pages}{path}", check=False).err
    assert near.api.request("GET", "/images/json?all=1").json == before


def test_redirects_have_an_end(near: Engine, pages: str) -> None:
    """A server that sends in circles is given up."""
    assert "redirect" in near.tare_cli("import", f"{pages}{'/to/' * 12}/root.tar", check=False).err.lower()


def test_who_leaves_ends_the_fetch(near: Engine, pages: str) -> None:
    """A server that trickles without end holds nothing of the engine once nobody waits for the image."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(near.socket))
        client.sendall(f"POST /images/create?fromSrc={pages}/trickle HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b"Downloading from" in client.recv(4096) + client.recv(4096)
    assert _Pages.current.given_up.wait(60)
