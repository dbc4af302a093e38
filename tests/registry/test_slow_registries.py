"""Registries that trickle, and proxies that say nothing: who left is let go, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest
from scripted_registry import Exchange, ScriptedRegistry, build, digest_of, tar_of
from test_registry_login import pull

from support.deadline import wait_until
from support.engine import Engine
from support.rawhttp import UnixConnection
from support.tared import Tared
from tare.registry import downloads, patience
from tare.registry import transport as transport_module
from tare.registry.downloads import Download
from tare.registry.endpoints import Endpoint
from tare.registry.records import Cancelled, Credentials, Interrupted, RegistrySettings
from tare.registry.repository import Repository
from tare.registry.transport import Transport

SETTINGS = RegistrySettings(certs_root=Path("/nonexistent"))


class SilentProxy:
    """A proxy that takes a request and never answers it; a CONNECT it grants, and is silent then."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = threading.Event()
        self.left = threading.Event()
        self.heard = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        line, _ = self._listener.accept()
        with line:
            line.settimeout(60)
            while b"\r\n\r\n" not in self.heard:
                self.heard += line.recv(4096)
            if self.heard.startswith(b"CONNECT"):
                line.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
                line.recv(4096)  # the first words of TLS
            self.asked.set()
            while line.recv(4096):
                pass
            self.left.set()

    def stop(self) -> None:
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentProxy]:
    """The proxy that this process's environment names."""
    made = SilentProxy()
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, made.url)
    monkeypatch.delenv("no_proxy", raising=False)
    yield made
    made.stop()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_called_off_behind_a_proxy_ends_at_once(proxy: SilentProxy, scheme: str) -> None:
    """The connection to a proxy is shut as that to a registry is: nobody waits for a time limit."""
    transport = Transport(SETTINGS)
    url = f"{scheme}://registry.test/v2/"
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(transport.request, Endpoint(f"{scheme}://registry.test", "registry.test"), "GET", url)
        assert proxy.asked.wait(60)
        assert proxy.heard.startswith(b"CONNECT" if scheme == "https" else f"GET {url}".encode())
        transport.cancel()
        with pytest.raises(Cancelled):
            asking.result(30)
    assert proxy.left.wait(30)
    transport.close()


def test_what_is_called_off_while_it_connects_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a machine that doesn't even answer."""
    monkeypatch.setattr(transport_module, "CONNECT_TIMEOUT_S", 600)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        port = full.getsockname()[1]
        for _ in range(4):  # once its queue is full, the kernel drops who comes next
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        waiting = connecting_to(port)
        assert waiting, "there is room in the queue"
        transport = Transport(SETTINGS)
        host = f"127.0.0.1:{port}"
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(transport.request, Endpoint(f"http://{host}", host), "GET", f"http://{host}/v2/")
            wait_until(lambda: connecting_to(port) > waiting, "the request connects")
            transport.cancel()
            with pytest.raises(Cancelled):
                asking.result(60)
        transport.close()


def connecting_to(port: int) -> int:
    """How many sockets of this machine wait for an answer from there: state SYN_SENT in /proc/net/tcp (proc(5))."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[3] == "02" for line in lines)


def test_a_client_that_leaves_ends_its_pull_behind_a_proxy(daemon: Tared) -> None:
    """The same from outside: the engine's environment names the proxy."""
    made = SilentProxy()
    try:
        daemon.env |= {"HTTPS_PROXY": made.url, "NO_PROXY": ""}
        daemon.start()
        query = {"fromImage": "registry.test/x", "tag": "1"}
        leaving = threading.Event()

        def ask() -> None:
            connection = UnixConnection(str(daemon.socket), 30)
            connection.request("POST", "/images/create?" + urlencode(query))
            leaving.wait(60)
            connection.close()

        client = threading.Thread(target=ask)
        client.start()
        try:
            assert made.asked.wait(60)
        finally:
            leaving.set()
            client.join()
        assert made.left.wait(30)
    finally:
        made.stop()


def trickle_plain(exchange: Exchange) -> None:
    """A long body, a byte at a time."""
    exchange.send_response(200)
    exchange.send_header("Content-Length", str(1 << 20))
    exchange.end_headers()
    drip(exchange, b"x")


def trickle_chunk_head(exchange: Exchange) -> None:
    """A chunk whose size is said for ever: no byte of the body ever comes."""
    exchange.send_response(200)
    exchange.send_header("Transfer-Encoding", "chunked")
    exchange.end_headers()
    drip(exchange, b"0")


def drip(exchange: Exchange, byte: bytes) -> None:
    exchange.close_connection = True
    try:
        while not exchange.registry.stopping.wait(0.02):
            exchange.wfile.write(byte)
    except OSError:
        pass


@pytest.mark.parametrize("trickle", [trickle_plain, trickle_chunk_head])
def test_a_body_that_trickles_is_given_up(
    scripted: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch, trickle: Callable[[Exchange], None]
) -> None:
    monkeypatch.setattr(patience, "SLOW_WINDOW_S", 0.3)
    scripted.script["/"] = trickle
    transport = Transport(SETTINGS)
    endpoint = Endpoint(f"http://{scripted.host}", scripted.host, checked=False)
    began = time.monotonic()
    with pytest.raises(Interrupted, match="sends less than"):
        for _ in transport.request(endpoint, "GET", f"http://{scripted.host}/").pieces():
            pass
    assert time.monotonic() - began < 40, "another limit ended it"
    transport.close()


def test_a_slow_reader_is_no_slow_registry(scripted: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only time spent waiting for the registry counts, not what our own disk takes."""
    monkeypatch.setattr(patience, "SLOW_WINDOW_S", 1)
    scripted.script["/"] = lambda exchange: exchange.answer(200, bytes(3000))
    transport = Transport(SETTINGS)
    endpoint = Endpoint(f"http://{scripted.host}", scripted.host, checked=False)
    pieces = transport.request(endpoint, "GET", f"http://{scripted.host}/").pieces()
    got = len(next(pieces))
    pause = threading.Event()
    pause.wait(1.5)  # the disk
    assert got + sum(len(piece) for piece in pieces) == 3000
    transport.close()


def test_trickling_is_no_progress(scripted: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A registry that sends a few bytes of a blob at each attempt has as many attempts as a silent one."""
    monkeypatch.setattr(patience, "SLOW_WINDOW_S", 0.2)
    blob = os.urandom(100_000)
    scripted.script["/blobs/"] = lambda exchange: trickle_range(exchange, blob)
    transport = Transport(SETTINGS)
    download = Download(digest_of(blob), len(blob), [repository_of(scripted, transport)])
    waited: list[int] = []
    with (tmp_path / "blob").open("wb") as file, pytest.raises(Interrupted, match="sends less than"):
        download.fill(file.fileno(), lambda done: None, waited.append, 3)
    assert waited == [1, 2] and len(scripted.asked("/blobs/")) == 3
    transport.close()


def trickle_range(exchange: Exchange, blob: bytes) -> None:
    start = int(exchange.headers.get("Range", "bytes=0-")[6:-1])
    exchange.send_response(206 if start else 200)
    if start:
        exchange.send_header("Content-Range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
    exchange.send_header("Content-Length", str(len(blob) - start))
    exchange.end_headers()
    exchange.close_connection = True
    try:
        for at in range(start, len(blob)):
            if exchange.registry.stopping.wait(0.02):
                return
            exchange.wfile.write(blob[at : at + 1])
    except OSError:
        pass


def repository_of(registry: ScriptedRegistry, transport: Transport) -> Repository:
    endpoint = Endpoint(f"http://{registry.host}", registry.host, checked=False)
    return Repository(transport, endpoint, Credentials(), "x")


def test_where_there_is_another_source_a_slow_one_is_left_earlier(
    scripted: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who keeps just above the least that is borne holds up nobody who could have the blob elsewhere."""
    monkeypatch.setattr(patience, "SLOW_WINDOW_S", 0.3)
    monkeypatch.setattr(downloads, "SLOW_BYTES", 1)
    blob = os.urandom(100_000)
    scripted.script["/blobs/"] = lambda exchange: trickle_range(exchange, blob)
    other = ScriptedRegistry()
    try:
        other.blobs[digest_of(blob)] = blob
        transport = Transport(SETTINGS)
        sources = [repository_of(scripted, transport), repository_of(other, transport)]
        with (tmp_path / "blob").open("w+b") as file:
            download = Download(digest_of(blob), len(blob), sources)
            download.fill(file.fileno(), lambda done: None, lambda seconds: None, 3)
            download.check(file.fileno())
        transport.close()
    finally:
        other.stop()


def hold(go: threading.Event) -> Callable[[Exchange], None]:
    """Says nothing until told, then that it hasn't the blob."""

    def silent(exchange: Exchange) -> None:
        go.wait(60)
        exchange.refuse(404, "BLOB_UNKNOWN", "it isn't here")

    return silent


def test_a_registry_that_holds_its_slots_holds_nobody_elses(tare: Engine, scripted: ScriptedRegistry) -> None:
    """How much is fetched at once is counted by registry: silence of one is no silence of another."""
    scripted.put_image("x", "1", build(*(tar_of(**{f"f{n}": b"x"}) for n in range(6))))
    go = threading.Event()
    scripted.script["/blobs/sha256:"] = lambda exchange: (
        scripted.serve(exchange) if b"rootfs" in scripted.blobs.get(exchange.path[-71:], b"") else hold(go)(exchange)
    )
    other = ScriptedRegistry()
    try:
        other.put_image("y", "1", build(tar_of(other=b"y")))
        with tare.api.opened("POST", "/images/create", query={"fromImage": f"{scripted.host}/x", "tag": "1"}) as answer:
            while b"Waiting" not in answer.readline():
                pass  # all its slots are taken
            status, text = pull(tare, f"{other.host}/y", "1")
            assert text.startswith("Status: Downloaded newer image"), (status, text)
    finally:
        go.set()
        other.stop()
    tare.api.request("DELETE", f"/images/{other.host}/y:1", query={"trash": "0"})


def test_who_shares_a_download_brings_a_source_along(tare: Engine, scripted: ScriptedRegistry) -> None:
    """A pull that joins another's download has the layer from its own registry if the other's fails."""
    built = build(tar_of(shared=b"both want it"))
    layer = built.manifest["layers"][0]["digest"]
    go = threading.Event()
    left = [1]

    def half(exchange: Exchange) -> None:
        if not left:
            return exchange.refuse(404, "BLOB_UNKNOWN", "it isn't here")
        left.pop()
        data = scripted.blobs[layer]
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(data)))
        exchange.end_headers()
        exchange.wfile.write(data[: len(data) // 2])
        go.wait(60)
        exchange.close_connection = True

    other = ScriptedRegistry()
    try:
        for registry in (scripted, other):
            registry.put_image("x", "1", built)
        scripted.script[f"/blobs/{layer}"] = half
        query = {"fromImage": f"{scripted.host}/x", "tag": "1"}
        with tare.api.opened("POST", "/images/create", query=query) as answer:
            while b"Downloading" not in answer.readline():
                pass
            lines = tare.api.stream("POST", "/images/create", query={**query, "fromImage": f"{other.host}/x"})
            assert any(b"Downloading" in line for line in lines), "it has joined"
            go.set()
            assert b"Status: Downloaded newer image" in b"".join(lines)
    finally:
        go.set()
        other.stop()
    for registry in (scripted, other):
        tare.api.request("DELETE", f"/images/{registry.host}/x:1", query={"trash": "0"}, check=False)
