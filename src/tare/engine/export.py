"""export: a container's whole root file system as a tar stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tare.engine.engine import Engine

QUEUED_CHUNKS = 16


class _Abandoned(Exception):
    """The reader is gone."""


async def export_container(engine: Engine, ref: str) -> AsyncIterator[bytes]:
    """The tar, chunk by chunk, of a running or stopped container. Raises NotFound before the first chunk."""
    container = engine.containers.find(ref)
    engine.events.container(container, "export")
    return _stream(engine, container.id)


async def _stream(engine: Engine, container_id: str) -> AsyncIterator[bytes]:
    """Runs the exporter in a thread; a full queue makes it wait, and a reader that leaves ends it."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_CHUNKS)
    gone = False

    def write(data: bytes) -> None:
        if gone:
            raise _Abandoned
        asyncio.run_coroutine_threadsafe(queue.put(bytes(data)), loop).result()

    async def work() -> None:
        try:
            await asyncio.to_thread(engine.snapshots.export, container_id, write)
        finally:
            if not gone:
                await queue.put(None)

    task = asyncio.create_task(work())
    try:
        while (chunk := await queue.get()) is not None:
            yield chunk
        await task
    finally:
        gone = True
        while not task.done():
            while not queue.empty():
                queue.get_nowait()
            await asyncio.wait([task], timeout=0.01)
        with contextlib.suppress(_Abandoned):
            if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, _Abandoned):
                raise error
