"""The trash: what was removed and can be had back. Only Tare has one."""

from __future__ import annotations

from tare.client.engine import quote
from tare.sdk import documents
from tare.sdk.aio.calls import FOREVER_S, AsyncCalls
from tare.sdk.records import Pruned, Trashed


class AsyncTrash:
    """`engine.trash`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def list(self, kind: str = "") -> list[Trashed]:
        """What waits, oldest first. kind: only "container", "volume" or "image"."""
        found = await self._calls.json("GET", "/tare/trash", {"kind": kind or None})
        return [documents.trashed(item) for item in found]

    async def restore(self, what: str, name: str = "", kind: str = "") -> str:
        """Brings back what has this name or id, the one removed last; returns its name now.

        name: another name for it. Conflict if the name is taken, NotFound if nothing such waits.
        """
        query = {"name": name or None, "kind": kind or None}
        found = await self._calls.json("POST", f"/tare/trash/{quote(what)}/restore", query)
        return str(found["Name"])

    async def empty(self, what: str = "", kind: str = "") -> Pruned:
        """Deletes all that waits for good, or only what has this name or id."""
        path = f"/tare/trash/{quote(what)}" if what else "/tare/trash"
        found = await self._calls.json("DELETE", path, {"kind": kind or None}, timeout_s=FOREVER_S)
        return Pruned(tuple(found["Deleted"]), found["SpaceReclaimed"])
