"""Images straight to and from another engine: what would go, what is missing here, then out and in."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from tare.engine.engine import Engine, in_thread
from tare.engine.image_transfer import LayerProgress, Loaded, Progress, taken_in
from tare.engine.thread_stream import BodyReader, begun_in_thread
from tare.images import receiving, sending
from tare.images.sending import Offer


async def offer_images(engine: Engine, names: Sequence[str]) -> Offer:
    """What belongs to the named images. Raises NotFound, InvalidArgument."""
    return await in_thread(sending.offer, engine.images, names)


async def missing_layers(engine: Engine, wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Of layers by digest and diff ID the digests of those that are not here. Raises InvalidArgument."""
    return await in_thread(receiving.missing, engine.images, wanted)


async def send_images(engine: Engine, names: Sequence[str], without: Sequence[str]) -> AsyncIterator[bytes]:
    """The archive of the named images without those layers. Raises NotFound, InvalidArgument before the first chunk."""
    offered = await offer_images(engine, names)
    for one in offered.chosen:
        engine.events.publish("image", "save", one.image.id, {"name": one.image.id})
    return await begun_in_thread(lambda write: sending.send(engine.images, offered, without, write))


async def receive_images(
    engine: Engine, body: AsyncIterator[bytes], *, only_new_names: bool
) -> AsyncGenerator[LayerProgress | Loaded, None]:
    """Takes in what another engine sent; tells how it goes, as a load does. Raises InvalidArgument, Conflict."""

    def work(reader: BodyReader, progress: Progress, loaded: Callable[[Loaded], None]) -> object:
        return receiving.receive(engine.images, reader, only_new_names=only_new_names, progress=progress, loaded=loaded)

    async with contextlib.aclosing(taken_in(engine, body, work)) as items:
        async for item in items:
            yield item
