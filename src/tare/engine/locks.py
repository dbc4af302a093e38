"""Locks by name (a container's id, `volume NAME` …), each there while somebody holds it or waits for it.

Must never be two of one name at once, nor stay for nobody: names come from outside, and there is no end of them.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Locks:
    """Take one by `async with locks[name]`: whoever is in there, or on the way in, keeps it in being."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __getitem__(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def __len__(self) -> int:
        return len(self._locks)
