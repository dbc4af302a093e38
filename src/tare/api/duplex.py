"""A connection that left HTTP: raw bytes both ways, half-close included; never speaks HTTP again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

HIGH_WATER_BYTES = 1 << 18
LOW_WATER_BYTES = 1 << 16


class Duplex:
    """Both directions of a hijacked connection."""

    def __init__(
        self,
        transport: asyncio.Transport,
        wait_writable: Callable[[], asyncio.Future[None] | None],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._wait_writable = wait_writable
        self._pause, self._resume = pause, resume
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self.gone = asyncio.Event()
        """Set once the client has closed the connection for good (a half-close doesn't)."""

    def feed(self, data: bytes) -> None:
        """The connection received data."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def feed_end(self) -> None:
        """The client won't send any more."""
        self._ended = True
        self._wake()

    def feed_lost(self) -> None:
        """The client is gone."""
        self.gone.set()
        self.feed_end()

    async def read(self) -> bytes:
        """What the client sent next; b"" once it won't send more."""
        while not self._chunks:
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        if self._paused and self._size < LOW_WATER_BYTES:
            self._paused = False
            self._resume()
        return chunk

    async def write(self, data: bytes) -> None:
        """Sends data; waits while the client reads slowly. Raises ConnectionResetError once it is gone."""
        if self.gone.is_set() or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        waiter = self._wait_writable()
        if waiter is not None:
            await waiter

    def write_eof(self) -> None:
        """Tells the client that nothing more comes, where the transport can (TLS can't)."""
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
