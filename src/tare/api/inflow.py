"""Bytes that a connection brings, until somebody takes them; while too many wait the connection is paused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Inflow:
    """Fed by the connection, taken by one reader. high_bytes, low_bytes: when it is paused, and goes on."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None], high_bytes: int, low_bytes: int) -> None:
        self._pause, self._resume = pause, resume
        self._high_bytes, self._low_bytes = high_bytes, low_bytes
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Data has come."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size > self._high_bytes and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def _take(self) -> bytes:
        """The oldest chunk; there must be one."""
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        if self._paused and self._size < self._low_bytes:
            self._paused = False
            self._resume()
        return chunk

    async def _wait(self) -> None:
        """Until something has come, or whatever else woke the reader."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
