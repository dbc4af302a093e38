"""WebSockets by RFC 6455, and how a stream travels in one."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpserver import RunningServer, read_exactly, read_until, running

from tare.api import websocket
from tare.api.errors import response_of
from tare.api.messages import Request, Response
from tare.api.raw_streams import Unframed, join
from tare.engine.streams import open_session
from tare.errors import TareError
from tare.runtime.streams import frame

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455 section 1.3
HANDSHAKE = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
HANDSHAKE += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"


async def handler(request: Request) -> Response | None:
    """/echo answers in capitals; /session joins to a process's stdio, which the handler plays."""
    try:
        websocket.check_handshake(request)
    except TareError as error:
        return response_of(error, "test")
    if request.path == "/session":
        session, theirs = await open_session(tty=False)
        process = asyncio.ensure_future(_process(theirs))
        await join(websocket.accept(request), Unframed(session))
        await process
        return None
    stream = websocket.accept(request)
    while data := await stream.read():
        await stream.write(data.upper())
    await stream.end()
    return None


async def _process(stdio: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=stdio)
    line = await reader.readline()
    for name, data in (("stdout", b"out:" + line), ("stderr", b"err"), ("stdout", b"x" * 100_000)):
        framed = frame(name, len(data)) + data
        for at in range(0, len(framed), 7777):
            writer.write(framed[at : at + 7777])
            await writer.drain()
    writer.close()


@pytest.fixture
def http(tmp_path: Path) -> Iterator[RunningServer]:
    with running(handler, tmp_path) as server:
        yield server


def opened(server: RunningServer, path: str, more: str = "") -> socket.socket:
    sock = server.connect()
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: here:1\r\n{HANDSHAKE}{more}\r\n".encode())
    head = read_until(sock, b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ") and b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    return sock


def masked(opcode: int, data: bytes, final: bool = True) -> bytes:
    """A client's frame."""
    mask = os.urandom(4)
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = struct.pack("!BH", 0xFE, size) if size < 1 << 16 else struct.pack("!BQ", 0xFF, size)
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    return bytes([(0x80 if final else 0) | opcode]) + length + mask + body


def received(sock: socket.socket) -> tuple[int, bytes]:
    """The server's next frame."""
    first, size = read_exactly(sock, 2)
    assert first & 0x80 and not size & 0x80
    if size == 126:
        (size,) = struct.unpack("!H", read_exactly(sock, 2))
    elif size == 127:
        (size,) = struct.unpack("!Q", read_exactly(sock, 8))
    return first & 0x0F, read_exactly(sock, size)


@pytest.mark.parametrize("size", [1, 125, 126, 65535, 65536, 300_000])
def test_data_of_all_sizes(http: RunningServer, size: int) -> None:
    """Each of the three forms of length works in both directions."""
    with opened(http, "/echo") as sock:
        data = b"a" * size
        sock.sendall(masked(2, data))
        got = b""
        while len(got) < size:
            opcode, part = received(sock)
            assert opcode == 2
            got += part
        assert got == data.upper()


def test_pings_fragments_and_the_end(http: RunningServer) -> None:
    """A ping is answered in between; fragments and text are data; close is answered with close."""
    with opened(http, "/echo") as sock:
        sock.sendall(masked(1, b"ab", final=False) + masked(9, b"p") + masked(0, b"cd") + masked(8, b"\x03\xe8"))
        assert [received(sock) for _ in range(4)] == [(2, b"AB"), (10, b"p"), (2, b"CD"), (8, b"\x03\xe8")]
        assert sock.recv(1) == b""


@pytest.mark.parametrize(
    ("frame_bytes", "code"),
    [
        (b"\x82\x01a", 1002),  # not masked
        (b"\xc2\x81\0\0\0\0a", 1002),  # an extension that wasn't agreed on
        (b"\x89\xfe\x00\x80", 1002),  # a long ping
        (b"\x82\xff" + (1 << 40).to_bytes(8, "big"), 1009),
    ],
)
def test_broken_rules_end_the_stream(http: RunningServer, frame_bytes: bytes, code: int) -> None:
    """Wrong frames are answered with the code that says why."""
    with opened(http, "/echo") as sock:
        sock.sendall(frame_bytes)
        assert received(sock) == (8, code.to_bytes(2, "big"))
        assert sock.recv(1) == b""


def test_other_origins_are_refused(http: RunningServer) -> None:
    """A page from elsewhere can't open a console; one of our own origin, and a client without one, can."""
    opened(http, "/echo", "Origin: http://here:1\r\n").close()
    answer = http.talk(
        f"GET /echo HTTP/1.1\r\nHost: here:1\r\n{HANDSHAKE}Origin: http://evil.example\r\n\r\n".encode(), end=True
    )
    assert answer.startswith(b"HTTP/1.1 403 ")
    answer = http.talk(b"GET /echo HTTP/1.1\r\nHost: here:1\r\n\r\n", end=True)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_process_behind_a_websocket(http: RunningServer) -> None:
    """Output comes without Docker's frames, however they are cut; its end closes the WebSocket."""
    with opened(http, "/session") as sock:
        sock.sendall(masked(2, b"hello\n"))
        got = b""
        while True:
            opcode, data = received(sock)
            if opcode == 8:
                break
            got += data
        assert got == b"out:hello\nerr" + b"x" * 100_000
