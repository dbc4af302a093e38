"""prune: removes all containers that don't run."""

from __future__ import annotations

from tare.engine import remove, trash
from tare.engine.engine import Engine, in_thread
from tare.engine.records import PruneReport
from tare.errors import Conflict, NotFound
from tare.values.filters import Filters, check_filters, match_labels, match_no_labels
from tare.values.timestamps import parse_instant


async def prune_containers(engine: Engine, filters: Filters, *, keep: bool = True) -> PruneReport:
    """Removes containers that don't run, filtered by until, label and label!. Raises InvalidArgument.

    keep: they wait in the trash, if the engine has one.
    """
    check_filters(filters, ("until", "label", "label!"))
    until = [parse_instant(text) for text in filters.get("until", ())]
    removed: list[str] = []
    freed: list[int] = []
    kept: list[int] = []
    for container in engine.containers:
        labels = container.config.labels or {}
        if container.state.running or container.leaving:  # on its way to another engine: held still, not stopped
            continue
        if not match_labels(filters, labels) or not match_no_labels(filters, labels):
            continue
        if until and container.created_ns > min(until):
            continue
        size, _ = await in_thread(engine.snapshots.sizes, container.id)
        try:
            waits = keep and trash.is_kept(engine, container)
            await remove.remove_stopped(engine, container.id, keep=waits)
        except (NotFound, Conflict):
            continue  # removed or started by somebody else meanwhile
        removed.append(container.id)
        (kept if waits else freed).append(size)
    engine.events.publish("container", "prune", "", {"reclaimed": str(sum(freed))})
    return PruneReport(removed=tuple(removed), reclaimed_bytes=sum(freed), trashed=len(kept), trashed_bytes=sum(kept))
