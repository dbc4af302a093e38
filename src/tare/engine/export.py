"""export: a container's whole root file system as a tar stream."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tare.engine.engine import Engine
from tare.engine.thread_stream import written_in_thread


async def export_container(engine: Engine, ref: str) -> AsyncIterator[bytes]:
    """The tar, chunk by chunk, of a running or stopped container. Raises NotFound before the first chunk."""
    container = engine.containers.find(ref)
    engine.events.container(container, "export")
    return written_in_thread(lambda write: engine.snapshots.export(container.id, write))
