"""Log servers for tests: real sockets that keep what comes, and readers of the drivers' formats that share no code."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.deadline import wait_until


class DatagramServer:
    """Keeps the datagrams that come to a UDP port of the loopback, or to a unix socket."""

    def __init__(self, path: Path | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(str(path) if path else ("127.0.0.1", 0))
        self.port = 0 if path else int(self.socket.getsockname()[1])
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while data := self.socket.recv(1 << 16):
            if data == b"\0end":
                return
            self.received.append(data)

    def wait(self, count: int) -> list[bytes]:
        """The datagrams, once there are count."""
        wait_until(lambda: len(self.received) >= count, f"{count} datagrams (have {self.received[-2:]!r})", 15)
        return list(self.received)

    def __enter__(self) -> DatagramServer:
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as client:
            client.sendto(b"\0end", self.socket.getsockname())
        self._thread.join(5)
        self.socket.close()


class StreamServer:
    """Keeps what comes over TCP (with TLS if a context is given) or a unix socket; can be down for a while.

    answer: called with all that a connection has sent; what it returns is sent back.
    """

    def __init__(
        self,
        path: Path | None = None,
        context: ssl.SSLContext | None = None,
        answer: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._path, self._context, self._answer = path, context, answer
        self.port = 0
        self.received = b""
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> StreamServer:
        """Listens, on the port that it had if it was up before."""
        listener = socket.socket(socket.AF_UNIX if self._path else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(str(self._path) if self._path else ("127.0.0.1", self.port))
        if not self._path:
            self.port = listener.getsockname()[1]
        listener.listen()
        self._listener = listener
        self._spawn(self._accept, listener)
        return self

    def reserve(self) -> StreamServer:
        """Finds a port without listening on it."""
        self.start().stop()
        return self

    def _spawn(self, function: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=function, args=(sock,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._connections.append(connection)
                self._spawn(self._read, connection)

    def _read(self, connection: socket.socket) -> None:
        mine = b""
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            while data := connection.recv(1 << 16):
                self.received += data
                mine += data
                if self._answer is not None:
                    connection.sendall(self._answer(mine))
        connection.close()

    def stop(self) -> None:
        """Hangs up and listens no more."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._connections.clear()
        self._threads.clear()
        if self._path:
            os.unlink(self._path)

    def wait(self, done: Callable[[bytes], Any], what: str) -> bytes:
        """Everything received, once `done` says so."""
        wait_until(lambda: done(self.received), what, 20)
        return self.received

    def __enter__(self) -> StreamServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self.stop()


def split_octet_counted(data: bytes) -> list[bytes]:
    """Messages with their size before them (RFC 6587, 3.4.1)."""
    found = []
    while data:
        size, _, data = data.partition(b" ")
        found.append(data[: int(size)])
        data = data[int(size) :]
    return found


def read_journal(datagram: bytes) -> dict[str, bytes]:
    """The fields of an entry in the journal's native protocol."""
    fields = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = struct.unpack("<Q", datagram[:8])[0]
            value, datagram = datagram[8 : 8 + size], datagram[8 + size + 1 :]
        fields[name.decode()] = value
    return fields


def join_gelf(datagrams: list[bytes]) -> list[bytes]:
    """Whole GELF messages, unpacked: chunks put together by their numbers."""
    parts: dict[bytes, dict[int, bytes]] = {}
    found = []
    for datagram in datagrams:
        if datagram[:2] == b"\x1e\x0f":
            mine = parts.setdefault(datagram[2:10], {})
            mine[datagram[10]] = datagram[12:]
            if len(mine) < datagram[11]:
                continue
            datagram = b"".join(mine[number] for number in range(datagram[11]))
        if datagram[:2] == b"\x1f\x8b":
            datagram = gzip.decompress(datagram)
        elif datagram[:1] == b"\x78":
            datagram = zlib.decompress(datagram)
        found.append(datagram)
    return found


def read_msgpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """A value and where the next begins (the MessagePack specification). Raises IndexError if it isn't whole."""
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind < 0x90:
        return _pairs(data, at, kind & 15)
    if kind < 0xA0:
        return _items(data, at, kind & 15)
    if kind < 0xC0:
        return _text(data, at, kind & 31)
    simple = {0xC0: None, 0xC2: False, 0xC3: True}
    if kind in simple:
        return simple[kind], at
    if kind in (0xD7, 0xC7):
        at += kind == 0xC7
        return _bytes(data, at + 1, 8)
    sizes = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD2: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
    raw, at = _bytes(data, at, sizes[kind])
    number = int.from_bytes(raw, "big")
    if kind <= 0xD2:
        return number, at
    return (_text if kind <= 0xDB else _items if kind <= 0xDD else _pairs)(data, at, number)


def _bytes(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(data):
        raise IndexError
    return data[at : at + size], at + size


def _text(data: bytes, at: int, size: int) -> tuple[str, int]:
    raw, at = _bytes(data, at, size)
    return raw.decode(), at


def _items(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(count):
        value, at = read_msgpack(data, at)
        found.append(value)
    return found, at


def _pairs(data: bytes, at: int, count: int) -> tuple[dict[Any, Any], int]:
    flat, at = _items(data, at, count * 2)
    return dict(zip(flat[::2], flat[1::2], strict=True)), at


def read_forward(data: bytes) -> list[list[Any]]:
    """All whole messages of fluentd's forward protocol."""
    found, at = [], 0
    while at < len(data):
        try:
            value, at = read_msgpack(data, at)
        except IndexError:
            break
        found.append(value)
    return found
