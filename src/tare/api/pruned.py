"""What the prune operations answer: Docker's keys, and what waits in the trash instead of being freed."""

from __future__ import annotations

from typing import Any

from tare.api.call import json_response
from tare.api.messages import Response
from tare.engine.records import PruneReport


def pruned_response(key: str, removed: list[Any] | None, report: PruneReport) -> Response:
    """SpaceReclaimed counts, as Docker's clients expect, what is no longer the removed things'; `Tare` says how much of
    it still waits in the trash, which gives way when space runs short."""
    made: dict[str, Any] = {key: removed, "SpaceReclaimed": report.reclaimed_bytes + report.trashed_bytes}
    if report.trashed:
        made["Tare"] = {"Trash": {"Count": report.trashed, "Size": report.trashed_bytes}}
    return json_response(made)
