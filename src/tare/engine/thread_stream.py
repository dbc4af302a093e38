"""Bytes between the event loop and a worker thread that blocks: a stream that a thread writes, a body that it reads."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable

QUEUED_CHUNKS = 16
CHUNK_BYTES = 128 << 10

Write = Callable[[bytes], object]


class _Abandoned(Exception):
    """The reader is gone."""


class _Pipe:
    """What the thread writes, gathered into chunks. All but `write` belongs to the loop's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_CHUNKS)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.gone = False

    def write(self, data: bytes) -> None:
        self._pending.append(bytes(data))
        self._pending_bytes += len(data)
        if self._pending_bytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self.gone:
            raise _Abandoned
        chunk = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        if chunk:
            asyncio.run_coroutine_threadsafe(self._put(chunk), self._loop).result()

    async def _put(self, chunk: bytes) -> None:
        if not self.gone:
            await self.queue.put(chunk)


async def written_in_thread(work: Callable[[Write], None]) -> AsyncGenerator[bytes, None]:
    """What `work` writes, chunk by chunk. A slow reader makes it wait; one that leaves ends it at its next write.

    The generator doesn't end before `work` has, so that what it uses can be closed behind it.
    """
    pipe = _Pipe()

    def run() -> None:
        work(pipe.write)
        pipe.flush()

    async def supervise() -> None:
        try:
            await asyncio.to_thread(run)
        except _Abandoned:
            pass
        finally:
            if not pipe.gone:
                await pipe.queue.put(None)

    task = asyncio.create_task(supervise())
    try:
        while (chunk := await pipe.queue.get()) is not None:
            yield chunk
        await task
    finally:
        pipe.gone = True
        while not pipe.queue.empty():
            pipe.queue.get_nowait()
        await asyncio.wait([task])


class BodyReader(io.RawIOBase):
    """A request's body as a blocking stream for a worker thread: the loop brings a chunk when the thread asks."""

    def __init__(self, body: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._body = aiter(body)
        self._loop = loop
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At least one byte, at most size; b"" at the end."""
        while not self._rest and not self._ended:
            self._rest = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        if size < 0:
            size = len(self._rest)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def _next(self) -> bytes:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            self._ended = True
            return b""
