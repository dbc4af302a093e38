"""Uploads and downloads that stall or fail: other verbs go on, and who waits for an answer reads what was wrong."""

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

from support.deadline import PATIENCE, wait_until
from support.leftovers import nothing_left
from support.tared import Tared, marks_of

STALLED = min(32, (os.cpu_count() or 1) + 4) + 4
"""More than Python's event loop has threads for all that blocks."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Tared]:
    """An engine that can be made to fail, with an image whose second layer is too large for a socket's buffers."""
    daemon = Tared("--trash-keep", "0", bridge=False)
    daemon.make_armable()
    with nothing_left(*marks_of([daemon]), everything=False):
        daemon.start()
        try:
            daemon.engine.prepare()
            run = ("run", "-d", "--network", "none", "--name", "work", daemon.engine.image, "sleep", "1000")
            daemon.engine.docker(*run)
            daemon.engine.docker("cp", "-", "work:/", input=tar_of({"random": os.urandom(8 << 20)}))
            daemon.engine.docker("commit", "work", "large")
            yield daemon
        finally:
            daemon.stop()
    daemon.scrub()


def tar_of(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def asked(daemon: Tared, method: str, path: str, *headers: str, body: bytes = b"") -> socket.socket:
    """A request on a connection of its own, that says nothing more and reads nothing."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30 * PATIENCE)
    client.connect(str(daemon.socket))
    head = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    client.sendall("\r\n".join(head).encode() + body)
    return client


def answer_of(client: socket.socket) -> bytes:
    """All that comes until the engine hangs up."""
    found = b""
    with client, contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            found += data
    return found


UPLOADS = {
    "load": ("POST", "/images/load"),
    "import": ("POST", "/images/create?fromSrc=-&repo=stalled"),
    "receive": ("POST", "/tare/images/receive"),
    "cp": ("PUT", "/containers/work/archive?path=/"),
}
DOWNLOADS = {
    "save": "/images/large/get",
    "export": "/tare/images/large/export",
    "cp": "/containers/work/archive?path=/random",
}


@pytest.mark.parametrize("what", [*(f"upload {one}" for one in UPLOADS), *(f"download {one}" for one in DOWNLOADS)])
def test_transfers_that_stall_are_nobody_elses_business(daemon: Tared, what: str) -> None:
    """However many clients stop in the middle of one: other verbs are answered, and nothing of the transfers stays."""
    way, verb = what.split()
    with contextlib.ExitStack() as clients:
        for _ in range(STALLED):
            if way == "upload":
                method, path = UPLOADS[verb]
                half = asked(daemon, method, path, "Transfer-Encoding: chunked", body=b"200\r\n" + bytes(100))
            else:
                half = asked(daemon, "GET", DOWNLOADS[verb])
            clients.enter_context(half)
        wait_until(lambda: threads(daemon) >= STALLED, f"{STALLED} threads wait")
        daemon.engine.docker("cp", "work:/etc/passwd", "-")
        daemon.engine.docker("tag", daemon.engine.image, "another")
        daemon.engine.docker("rmi", "another")
    wait_until(lambda: threads(daemon) < STALLED, "their threads have ended")
    assert [tag for one in daemon.engine.api.request("GET", "/images/json").json for tag in one["RepoTags"]] == [
        "large:latest",
        f"{daemon.engine.image}:latest",
    ]


def threads(daemon: Tared) -> int:
    """How many threads wait for a client."""
    names = (Path(f"/proc/{daemon.pid}/task/{task}") for task in os.listdir(f"/proc/{daemon.pid}/task"))
    return sum(1 for _ in names) - 2


def test_a_load_that_fails_unexpectedly_says_so(daemon: Tared) -> None:
    """The answer has begun with 200: its last line is the error, whatever that is."""
    archive = daemon.engine.api.request("GET", "/images/large/get").body
    for path in ("/images/load", "/tare/images/receive"):
        verb = path.rpartition("/")[2]
        daemon.arm(f"images.{verb}.checked")
        try:
            answer = daemon.engine.api.request("POST", path, archive)
        finally:
            daemon.arm("")
        last = json.loads(answer.body.splitlines()[-1])
        assert last == {
            "error": f"InjectedFault: images.{verb}.checked",
            "errorDetail": {"message": f"InjectedFault: images.{verb}.checked"},
        }


def test_an_import_from_an_address_that_fails_unexpectedly_says_so(daemon: Tared) -> None:
    class Archive(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = tar_of({"file": b"x"})
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archive) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        daemon.arm("storage.layer.row")
        try:
            source = f"http://127.0.0.1:{server.server_port}/x.tar"
            answer = daemon.engine.api.request("POST", "/images/create", query={"fromSrc": source, "repo": "never"})
        finally:
            daemon.arm("")
            server.shutdown()
            thread.join()
    assert json.loads(answer.body.splitlines()[-1])["error"] == "InjectedFault: storage.layer.row"


def test_an_address_that_is_none_is_refused(daemon: Tared) -> None:
    """By 400, as what it is."""
    for address in ("http://[::1", "http://", "ftp://x/y"):
        answer = daemon.engine.api.request("POST", "/images/create", query={"fromSrc": address}, check=False)
        assert answer.status == 400 and "only http:// and https://" in answer.message, answer


def test_members_whose_names_are_no_text_are_told_of(daemon: Tared) -> None:
    """An archive may have a layer under any name that nothing refers to: its progress is told, and the load goes on."""
    archive = io.BytesIO(daemon.engine.api.request("GET", f"/images/{daemon.engine.image}/get").body)
    layer = tar_of({"file": b"x"})
    with tarfile.open(fileobj=archive, mode="a", encoding="utf-8", errors="surrogateescape") as tar:
        entry = tarfile.TarInfo("odd\udcff/layer.tar")
        entry.size = len(layer)
        tar.addfile(entry, io.BytesIO(layer))
    answer = daemon.engine.api.request("POST", "/images/load", archive.getvalue())
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert lines[-1] == {"stream": f"Loaded image: {daemon.engine.image}:latest\n"}
    assert "odd?" in {line.get("id") for line in lines}


@pytest.fixture
def damaged(daemon: Tared) -> Iterator[Tared]:
    """The large layer has other bytes than it should, at its end: what reads it has begun to answer by then."""
    (path,) = (daemon.data_root / "layers/layers").glob("*/*/random")
    before = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(before, before))
    yield daemon
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(last)
    os.utime(path, ns=(before, before))


def test_an_archive_that_breaks_off_says_why_to_those_who_ask(damaged: Tared) -> None:
    """Others see a cut connection, as from Docker, and never a whole answer."""
    plain = answer_of(asked(damaged, "GET", "/images/large/get"))
    told = answer_of(asked(damaged, "GET", "/images/large/get", "Tare-Errors: inline"))
    assert plain.startswith(b"HTTP/1.1 200") and not plain.endswith(b"0\r\n\r\n") and b"is damaged" not in plain[-500:]
    assert told.startswith(b"HTTP/1.1 200") and b"\r\n!layer sha256:" in told[-500:]
    assert told.endswith(b"\r\n") and b"is damaged" in told[-500:]


def test_the_command_line_says_why_an_archive_broke_off(damaged: Tared, tmp_path: Path) -> None:
    """save, and send to another engine: exit status 1 and the engine's words; nothing arrives there."""
    done = damaged.engine.tare_cli("save", "-o", str(tmp_path / "x.tar"), "large", check=False)
    assert done.code == 1 and "is damaged" in done.err and "Traceback" not in done.err, done
    with Tared(bridge=False) as other:
        done = damaged.engine.tare_cli("send", "large", f"unix://{other.socket}", check=False)
        assert done.code == 1 and "is damaged" in done.err and "Traceback" not in done.err, done
        assert other.engine.api.request("GET", "/images/json").json == []
    other.scrub()


def test_what_fails_before_the_first_byte_has_a_status(daemon: Tared) -> None:
    """A small archive that can't be made is an answer of its own, for Docker's clients, too."""
    small = tar_of({"small": b"x" * 100})
    daemon.engine.api.request("POST", "/images/create", small, query={"fromSrc": "-", "repo": "s"})
    (path,) = (daemon.data_root / "layers/layers").glob("*/*/small")
    path.write_bytes(b"y" * 100)
    done = daemon.engine.docker("save", "s", check=False)
    assert done.code == 1 and "is damaged" in done.err, done
    daemon.engine.docker("rmi", "s")
