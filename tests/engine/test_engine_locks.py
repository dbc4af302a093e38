"""Locks by name: one for all who want it at a time, and none is kept for nobody."""

from __future__ import annotations

import asyncio

from tare.engine.locks import Locks


def test_a_lock_lasts_as_long_as_somebody_has_it() -> None:
    """Holder and waiters share one, though it isn't kept: names come and go, the dictionary doesn't grow."""
    locks = Locks()
    order: list[str] = []

    async def work(name: str, going: asyncio.Event | None = None, wait: asyncio.Event | None = None) -> None:
        async with locks["arriving x"]:
            order.append(name)
            if going is not None:
                going.set()
            if wait is not None:
                await wait.wait()
            await asyncio.sleep(0)
            order.append(name)

    async def run() -> None:
        going, wait = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(work("first", going, wait))
        await going.wait()
        others = [asyncio.create_task(work(name)) for name in ("second", "third")]
        await asyncio.sleep(0)
        assert len(locks) == 1 and locks["arriving x"].locked()
        wait.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert order == ["first", "first", "second", "second", "third", "third"]
    assert len(locks) == 0


def test_names_leave_nothing() -> None:
    locks = Locks()

    async def run() -> None:
        for number in range(1000):
            async with locks[f"arriving {number}"]:
                pass
        assert not locks["arriving 1"].locked()

    asyncio.run(run())
    assert len(locks) == 0
