"""changes (`diff`): what a container changed in its root file system."""

from __future__ import annotations

from tare.engine.engine import Engine, in_thread
from tare.engine.records import FileChange


async def container_changes(engine: Engine, ref: str) -> list[FileChange]:
    """Added, changed and deleted paths, sorted. Raises NotFound."""
    container = engine.containers.find(ref)
    found = await in_thread(engine.snapshots.changes, container.id)
    return [FileChange(kind=change.kind, path=change.path) for change in found]
