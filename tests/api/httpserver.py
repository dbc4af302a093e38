"""Runs the API's HTTP server on a unix socket in a thread of its own, for tests that speak to it with plain sockets."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from tare.api.messages import Handler, Request, Response
from tare.api.server import Server, serve
from tare.errors import TareError

CHUNK = b"x" * 65536


class Watched:
    """What the test's handler saw."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.closed = threading.Event()
        self.sent_bytes = 0
        self.read_bytes = 0
        self.may_read = asyncio.Event()

    async def quiet(self) -> AsyncIterator[bytes]:
        """A stream that says nothing."""
        self.started.set()
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            self.closed.set()

    async def endless(self) -> AsyncIterator[bytes]:
        """A stream that never ends."""
        self.started.set()
        try:
            while True:
                self.sent_bytes += len(CHUNK)
                yield CHUNK
        finally:
            self.closed.set()

    async def __call__(self, request: Request) -> Response | None:
        try:
            return await self._answer(request)
        except TareError as error:
            return Response(400, {}, str(error).encode())

    async def _answer(self, request: Request) -> Response | None:
        if request.path == "/echo":
            body = await request.body.read_whole(1 << 20)
            return Response(200, {"X-Query": request.query}, request.method.encode() + b":" + body)
        if request.path == "/header":
            return Response(200, {"X-Value": "a\r\nX-Evil: 1"}, b"")
        if request.path == "/digest":
            seen = hashlib.sha256()
            async for chunk in request.body:
                seen.update(chunk)
            return Response(200, {}, seen.hexdigest().encode())
        if request.path == "/unread":
            self.started.set()
            await self.may_read.wait()
            async for chunk in request.body:
                self.read_bytes += len(chunk)
            return Response(200, {}, str(self.read_bytes).encode())
        if request.path == "/hang":
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        if request.path == "/raw":
            return await self._raw(request)
        streams = {"/quiet": self.quiet, "/endless": self.endless, "/three": three, "/broken": broken}
        if request.path in streams:
            return Response(200, {}, streams[request.path]())
        return Response(404, {}, request.path.encode())

    async def _raw(self, request: Request) -> None:
        """Echoes raw bytes, then says goodbye when the client has half-closed."""
        duplex = request.hijack(101 if request.wants_upgrade else 200, {"Content-Type": "raw"})
        self.started.set()
        while data := await duplex.read():
            await duplex.write(data)
        await duplex.write(b"bye")
        if request.query == "stay":
            await duplex.gone.wait()
            self.closed.set()
        else:
            duplex.write_eof()


async def three() -> AsyncIterator[bytes]:
    for word in (b"one", b"", b"two", b"three"):
        yield word


async def broken() -> AsyncIterator[bytes]:
    yield b"begun"
    raise RuntimeError("a stream that fails in the middle")


class RunningServer:
    """A server that runs: connect to it, look at it, do something on its loop."""

    def __init__(
        self, family: int, address: str | tuple[str, int], client_context: ssl.SSLContext | None = None
    ) -> None:
        self.family = family
        self.address = address
        self.client_context = client_context
        self.loop: asyncio.AbstractEventLoop
        self.server: Server

    def connect(self) -> socket.socket:
        """A new connection with a time limit."""
        made = socket.socket(self.family)
        made.settimeout(60)
        made.connect(self.address)
        if self.client_context is not None:
            return self.client_context.wrap_socket(made, server_hostname="localhost", suppress_ragged_eofs=False)
        return made

    def connections(self) -> int:
        """How many connections the server holds."""
        return len(self.server.connections)

    def talk(self, data: bytes, *, end: bool = False) -> bytes:
        """Sends data on a connection of its own and returns everything that comes until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)


@contextmanager
def running(
    handler: Handler,
    tmp_path: Path,
    *,
    tcp: bool = False,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> Iterator[RunningServer]:
    """Serves handler; nothing is left afterwards, not even a task. contexts: the server's and the client's, for TLS."""
    listener = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0) if tcp else str(tmp_path / "api.sock"))
    listener.listen(64)
    made = RunningServer(listener.family, listener.getsockname(), contexts[1] if contexts else None)
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        made.loop = asyncio.get_running_loop()
        made.server = await serve(handler, [listener], contexts[0] if contexts else None)
        ready.set()
        await stop.wait()
        await made.server.close(grace_s=0.2)
        assert not made.server.connections
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks, tasks

    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failure.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield made
    finally:
        made.loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        if failure:
            raise failure[0]


def read_all(sock: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while chunk := sock.recv(1 << 16):
        parts.append(chunk)
    return b"".join(parts)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """What comes up to and with end (and perhaps more)."""
    data = b""
    while end not in data:
        chunk = sock.recv(1 << 16)
        if not chunk:
            raise AssertionError(f"closed before {end!r}: {data!r}")
        data += chunk
    return data


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Just so many bytes."""
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise AssertionError(f"closed after {len(data)} of {size} bytes")
        data += chunk
    return data
