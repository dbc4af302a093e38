"""A few network namespaces kept ready, so that a start doesn't wait for one to be made.

It must never make one itself (that takes a process with one thread): it asks the launcher through `make`.
"""

from __future__ import annotations

import asyncio
from collections import deque

from tare.errors import TareError
from tare.kernel.netns import Netns
from tare.network.doors import MakeNetns

_REFILL_DELAY_S = 0.02  # the launcher is busy with the start that took the last one


class NamespacePool:
    """Takes from what is ready, else waits for a fresh one; refills in the background."""

    def __init__(self, make: MakeNetns, size: int) -> None:
        self._make = make
        self._size = size
        self._ready: deque[Netns] = deque()
        self._refill: asyncio.Task[None] | None = None
        self._closed = False

    async def take(self, id_maps: tuple[str, str] | None = None) -> Netns:
        """id_maps: uid_map and gid_map of a user namespace that is to own it; such a one is always fresh."""
        if id_maps is not None:
            return await self._make(*id_maps)
        namespace = self._ready.popleft() if self._ready else await self._make()
        self.refill_nowait()
        return namespace

    def give_back(self, namespace: Netns) -> None:
        """Takes back a namespace in which nothing was done."""
        if self._closed or len(self._ready) > self._size:
            namespace.close()
        else:
            self._ready.appendleft(namespace)

    def refill_nowait(self) -> None:
        if not self._closed and len(self._ready) < self._size and (self._refill is None or self._refill.done()):
            self._refill = asyncio.get_running_loop().create_task(self._fill(), name="network-namespaces")

    async def wait_full(self) -> None:
        """Until the pool holds as many as it should (tests and benchmarks)."""
        self.refill_nowait()
        if self._refill is not None:
            await self._refill

    async def _fill(self) -> None:
        await asyncio.sleep(_REFILL_DELAY_S)
        while not self._closed and len(self._ready) < self._size:
            try:
                namespace = await self._make()
            except (TareError, OSError):
                return  # the next take asks again, and reports it
            if self._closed:
                namespace.close()
                return
            self._ready.append(namespace)

    async def close(self) -> None:
        self._closed = True
        if self._refill is not None:
            await self._refill  # not cancelled: descriptors on their way here would be lost
        while self._ready:
            self._ready.pop().close()
