"""save and load: images out of the engine as an archive, and into it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

import msgspec

from tare.engine.engine import Engine, in_own_thread, in_thread
from tare.engine.slim import slim_soon
from tare.engine.sweep import empty_trash_soon
from tare.engine.telling import Telling
from tare.engine.thread_stream import BodyReader, begun_in_thread
from tare.images import archive_load, archive_save
from tare.images.archive_load import Loaded
from tare.images.archive_read import Progress
from tare.images.records import Platform

PROGRESS_INTERVAL_S = 0.1


class LayerProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How much of an archive's member has been read."""

    member: str
    done_bytes: int
    size_bytes: int


Told = Telling[LayerProgress | Loaded]
Work = Callable[[BodyReader, Progress, Callable[[Loaded], None]], object]


async def save_images(engine: Engine, names: Sequence[str], platforms: Sequence[Platform] = ()) -> AsyncIterator[bytes]:
    """The archive, chunk by chunk. Raises NotFound, InvalidArgument before the first chunk."""
    chosen = await in_thread(archive_save.choose, engine.images, names, platforms)
    for one in chosen:
        engine.events.publish("image", "save", one.image.id, {"name": one.image.id})
    return await begun_in_thread(lambda write: archive_save.save(engine.images, chosen, write))


async def load_images(
    engine: Engine, body: AsyncIterator[bytes], platforms: Sequence[Platform] = ()
) -> AsyncGenerator[LayerProgress | Loaded, None]:
    """Loads an archive: tells how it goes, and of each image once it is on the disk. Raises InvalidArgument.

    A load whose archive has come to its end is finished though nobody listens any more.
    """

    def work(reader: BodyReader, progress: Progress, loaded: Callable[[Loaded], None]) -> object:
        return archive_load.load(engine.images, reader, platforms=platforms, progress=progress, loaded=loaded)

    async with contextlib.aclosing(taken_in(engine, body, work)) as items:
        async for item in items:
            yield item


async def taken_in(
    engine: Engine, body: AsyncIterator[bytes], work: Work
) -> AsyncGenerator[LayerProgress | Loaded, None]:
    """What a thread that reads images from a request's body tells. It goes on though nobody listens any more."""
    told: Told = Telling(lambda item: item.member if isinstance(item, LayerProgress) else None)
    engine.spawn(_take_in(engine, body, work, told), "load images")
    async with contextlib.aclosing(told.items()) as items:
        async for item in items:
            yield item


async def _take_in(engine: Engine, body: AsyncIterator[bytes], work: Work, told: Told) -> None:
    loop = asyncio.get_running_loop()
    last = [0.0]

    def progress(member: str, done_bytes: int, size_bytes: int) -> None:
        now = time.monotonic()
        if done_bytes == size_bytes or now - last[0] >= PROGRESS_INTERVAL_S:
            last[0] = now
            told.tell(LayerProgress(member=member, done_bytes=done_bytes, size_bytes=size_bytes))

    def loaded(one: Loaded) -> None:
        loop.call_soon_threadsafe(engine.events.publish, "image", "load", one.image.id, {"name": one.image.id})
        told.tell(one)

    try:
        await in_own_thread(work, BodyReader(body, loop), progress, loaded)
    except Exception as error:
        told.end(error)
    else:
        told.end()
    finally:
        empty_trash_soon(engine)
        slim_soon(engine)


__all__ = ["LayerProgress", "Loaded", "Platform", "Progress", "load_images", "save_images", "taken_in"]
