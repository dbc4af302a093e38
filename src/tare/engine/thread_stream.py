"""Bytes between the event loop and a worker thread that blocks: a stream that a thread writes, a body that it reads."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from tare.engine.engine import in_own_thread
from tare.engine.pace import bytes_moved

QUEUED_CHUNKS = 8
CHUNK_BYTES = 256 << 10

Write = Callable[[bytes], object]


class _Abandoned(Exception):
    """The reader is gone."""


class _Pipe:
    """What the thread writes, gathered into chunks. `write` and `flush` belong to the thread, all else to the loop.

    The thread waits only where the reader is several chunks behind, not for each chunk to be taken.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._room = threading.Semaphore(QUEUED_CHUNKS)
        self._chunks: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._gone = False

    def write(self, data: bytes) -> None:
        self._pending.append(bytes(data))
        self._pending_bytes += len(data)
        if self._pending_bytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        chunk = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        if chunk and not self._gone:
            bytes_moved()
            self._room.acquire()
            if not self._gone:
                self._loop.call_soon_threadsafe(self._arrive, chunk)
        if self._gone:
            raise _Abandoned

    def _arrive(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._news.set()

    async def read(self) -> bytes:
        """The next chunk; b"" once nothing more is written."""
        while not self._chunks and not self._ended:
            self._news.clear()
            await self._news.wait()
        if not self._chunks:
            return b""
        self._room.release()
        return self._chunks.popleft()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    def abandon(self) -> None:
        """Nobody reads any more: the thread ends at its next write."""
        self._gone = True
        self._chunks.clear()
        self._room.release()


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
            await in_own_thread(run)
        except _Abandoned:
            pass
        finally:
            pipe.end()

    task = asyncio.create_task(supervise())
    try:
        while chunk := await pipe.read():
            yield chunk
        await task
    finally:
        pipe.abandon()
        await asyncio.wait([task])


class Begun:
    """A stream whose first chunk is there already."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await anext(self._rest)

    async def aclose(self) -> None:
        """Ends the writing thread."""
        await self._rest.aclose()


async def begun_in_thread(work: Callable[[Write], None]) -> Begun:
    """The same, once there is a first chunk: what goes wrong before is raised here, and can be an answer of its own."""
    chunks = written_in_thread(work)
    return Begun(await anext(chunks, b""), chunks)


class BodyReader(io.RawIOBase):
    """A request's body as a blocking stream for a worker thread: the loop brings a chunk when the thread asks."""

    def __init__(self, body: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._body = aiter(body)
        self._loop = loop
        self._rest = b""
        self._at = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At least one byte, at most size; b"" at the end."""
        while self._at == len(self._rest) and not self._ended:
            self._at = 0
            bytes_moved()
            self._rest = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        data = self._rest[self._at : self._at + size if size >= 0 else None]
        self._at += len(data)
        return data

    async def _next(self) -> bytes:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            self._ended = True
            return b""
