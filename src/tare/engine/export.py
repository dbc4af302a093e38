"""export: the whole root file system of a container, or of a version of an image, as a tar stream."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tare.engine.engine import Engine, in_thread
from tare.engine.thread_stream import begun_in_thread
from tare.engine.version_reference import resolve_version


async def export_container(engine: Engine, ref: str) -> AsyncIterator[bytes]:
    """The tar, chunk by chunk, of a running or stopped container. Raises NotFound before the first chunk."""
    container = engine.containers.find(ref)
    engine.events.container(container, "export")
    return await begun_in_thread(lambda write: engine.snapshots.export(container.id, write))


async def export_image(engine: Engine, ref: str) -> AsyncIterator[bytes]:
    """The same of an image: a name, an id, or NAME@ID. Raises NotFound, InvalidArgument before the first chunk."""
    image = await in_thread(resolve_version, engine, ref)
    engine.events.publish("image", "export", image.id, {"name": ref})
    return await begun_in_thread(lambda write: engine.snapshots.export_layers(image.diff_ids, write))
