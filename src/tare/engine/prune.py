"""prune: removes all containers that don't run."""

from __future__ import annotations

from tare.engine import remove
from tare.engine.engine import Engine, in_thread
from tare.engine.records import PruneReport
from tare.errors import Conflict, NotFound
from tare.values.filters import Filters, check_filters, match_labels, match_no_labels
from tare.values.timestamps import parse_instant


async def prune_containers(engine: Engine, filters: Filters) -> PruneReport:
    """Removes containers that don't run, filtered by until, label and label!. Raises InvalidArgument."""
    check_filters(filters, ("until", "label", "label!"))
    until = [parse_instant(text) for text in filters.get("until", ())]
    removed, reclaimed = [], 0
    for container in engine.containers:
        labels = container.config.labels or {}
        if container.state.running or not match_labels(filters, labels) or not match_no_labels(filters, labels):
            continue
        if until and container.created_ns > min(until):
            continue
        size, _ = await in_thread(engine.snapshots.sizes, container.id)
        try:
            await remove.remove_stopped(engine, container.id)
        except (NotFound, Conflict):
            continue  # removed or started by somebody else meanwhile
        removed.append(container.id)
        reclaimed += size
    engine.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
    return PruneReport(removed=tuple(removed), reclaimed_bytes=reclaimed)
