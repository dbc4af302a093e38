"""The HTTP server behind TLS: the same as without, half-close included, and clients that don't belong here."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpserver import RunningServer, read_all, read_until, running
from test_http_server import Watched, get

from support.deadline import wait_until

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    argv += " -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    subprocess.run(argv.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def contexts(request: pytest.FixtureRequest, certificate: Path) -> Contexts:
    """Server and client contexts that ask each other for a certificate."""
    version = ssl.TLSVersion[request.param]
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    client = ssl.create_default_context(cafile=str(certificate))
    for context in (server, client):
        context.load_cert_chain(certificate)
        context.minimum_version = context.maximum_version = version
        context.verify_mode = ssl.CERT_REQUIRED
    return server, client


@pytest.fixture
def seen() -> Watched:
    return Watched()


@pytest.fixture
def https(seen: Watched, contexts: Contexts, tmp_path: Path) -> Iterator[RunningServer]:
    with running(seen, tmp_path, tcp=True, contexts=contexts) as server:
        yield server


def test_requests_streams_and_large_bodies(https: RunningServer) -> None:
    """Keep-alive, chunked answers and 16 MiB of body work as without TLS."""
    block = os.urandom(1 << 20)
    with https.connect() as sock:
        sock.sendall(get("/echo", "Content-Length: 2\r\n", "POST") + b"hi")
        assert read_until(sock, b"POST:hi")
        sock.sendall(get("/three"))
        assert b"three" in read_until(sock, b"0\r\n\r\n")
        sock.sendall(get("/digest", f"Content-Length: {16 << 20}\r\nConnection: close\r\n", "POST"))
        for _ in range(16):
            sock.sendall(block)
        assert read_all(sock).endswith(hashlib.sha256(block * 16).hexdigest().encode())


def test_a_slow_client_holds_the_stream_back(https: RunningServer, seen: Watched) -> None:
    """Back-pressure reaches through the encryption, and a vanished client ends the stream."""
    with https.connect() as sock:
        sock.sendall(get("/endless"))
        read_until(sock, b"\r\n\r\n")
        last = -1

        def settled() -> bool:
            nonlocal last
            same, last = last == seen.sent_bytes, seen.sent_bytes
            return same

        wait_until(settled, "the producer stops")
        assert seen.sent_bytes < 16 << 20
    assert seen.closed.wait(60)


@pytest.mark.parametrize("farewell", ["FIN", "close_notify"])
def test_the_end_of_the_input_is_not_the_end(https: RunningServer, farewell: str) -> None:
    """A raw stream whose client ended its input, by either way, still carries output: `echo x | docker run -i …`."""
    with https.connect() as sock:
        assert isinstance(sock, ssl.SSLSocket)
        sock.sendall(get("/raw", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "POST") + b"data")
        read_until(sock, b"\r\n\r\n")
        if farewell == "FIN":
            socket.socket.shutdown(sock, socket.SHUT_WR)
            data = b""
            while not data.endswith(b"bye"):
                data += sock.recv(100)
        else:
            # unwrap() sends close_notify and would then refuse what still comes: do it below, on the bare descriptor
            data = _after_close_notify(https)
        assert data.endswith(b"databye") or data == b"bye"


def _after_close_notify(https: RunningServer) -> bytes:
    """Speaks TLS through buffers, so that close_notify can be sent while the other side still writes."""
    assert https.client_context is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = https.client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(https.address) as sock:
        sock.settimeout(60)
        got = b""

        def step(call: object) -> bool:
            nonlocal got
            assert callable(call)
            try:
                answer = call()
                done = True
            except ssl.SSLWantReadError:
                answer, done = b"", False
            except ssl.SSLZeroReturnError:
                answer, done = b"", True
            sock.sendall(outgoing.read())
            got += answer if isinstance(answer, bytes) else b""
            return done

        while not step(tls.do_handshake):
            incoming.write(sock.recv(1 << 16))
        step(lambda: tls.write(get("/raw", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "POST") + b"data") and b"")
        while b"data" not in got:
            if not step(lambda: tls.read(1 << 16)):
                incoming.write(sock.recv(1 << 16))
        step(tls.unwrap)
        while not got.endswith(b"bye"):
            if not step(lambda: tls.read(1 << 16)):
                chunk = sock.recv(1 << 16)
                assert chunk, got
                incoming.write(chunk)
        return got


def test_strangers_are_turned_away(https: RunningServer, certificate: Path) -> None:
    """Plain HTTP, noise, and a client without a certificate don't reach the handler."""
    for data in (get("/echo"), os.urandom(100)):
        with socket.create_connection(https.address) as sock:
            sock.settimeout(60)
            sock.sendall(data)
            try:
                assert b"HTTP/1.1 200" not in read_all(sock)
            except ConnectionResetError:
                pass
    nameless = ssl.create_default_context(cafile=str(certificate))
    with pytest.raises((ssl.SSLError, ConnectionError)), socket.create_connection(https.address) as bare:
        bare.settimeout(60)
        with nameless.wrap_socket(bare, server_hostname="localhost") as sock:
            sock.sendall(get("/echo"))
            assert b"HTTP" not in sock.recv(100)
            raise ConnectionError("closed without an answer")
    wait_until(lambda: https.connections() == 0, "no connection is left")
