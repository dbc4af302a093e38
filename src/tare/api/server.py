"""The HTTP server: listening sockets, their connections, and a graceful end. Knows no route and no engine."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterable
from functools import partial

from tare.api.connection import Connection
from tare.api.messages import Handler
from tare.api.tls import TlsProtocol

IDLE_TIMEOUT_S = 300.0
SWEEP_INTERVAL_S = 30.0


class Server:
    """Some listening sockets with one handler. Use serve() to make one."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections: set[Connection] = set()
        self.accepting = True
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(self, sockets: Iterable[socket.socket], ssl_context: ssl.SSLContext | None = None) -> None:
        """Takes listening (or only bound) sockets, unix and TCP. TLS is for the TCP ones."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            sock.setblocking(False)
            if sock.family == socket.AF_UNIX:
                made = await loop.create_unix_server(self._connect, sock=sock, backlog=1024)
            else:
                connect = self._connect if ssl_context is None else partial(self._connect_tls, ssl_context)
                made = await loop.create_server(connect, sock=sock, backlog=1024)
            self._listeners.append(made)
        if self._sweeper is None:
            self._sweep()

    async def close(self, grace_s: float = 5.0) -> None:
        """Stops listening, cuts streams, lets other requests end within grace_s, then cuts what is left. Idempotent."""
        self.accepting = False
        for listener in self._listeners:
            listener.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            if not connection.answering:
                connection.close()
        if not await self._wait_empty(grace_s):
            for connection in list(self.connections):
                connection.close()
            await self._wait_empty(1.0)

    async def _wait_empty(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while self.connections and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return not self.connections

    def _connect(self) -> Connection:
        return Connection(self)

    def _connect_tls(self, context: ssl.SSLContext) -> TlsProtocol:
        return TlsProtocol(context, Connection(self))

    def _sweep(self) -> None:
        """Hangs up on those who have sent no whole request for long."""
        limit = time.monotonic() - IDLE_TIMEOUT_S
        for connection in list(self.connections):
            if not connection.busy and connection.idle_since < limit:
                connection.close()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_INTERVAL_S, self._sweep)


async def serve(
    handler: Handler, sockets: Iterable[socket.socket], ssl_context: ssl.SSLContext | None = None
) -> Server:
    """A running server on sockets that the caller made."""
    server = Server(handler)
    await server.listen(sockets, ssl_context)
    return server
