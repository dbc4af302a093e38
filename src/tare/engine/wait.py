"""wait: until a container stops running, exits next, or is removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from tare.engine.engine import Engine
from tare.engine.records import WaitResult
from tare.errors import InvalidArgument

CONDITIONS = ("not-running", "next-exit", "removed")


async def wait_container(engine: Engine, ref: str, condition: str) -> Awaitable[WaitResult]:
    """Registers a wait; awaiting what it returns waits. condition: "" (not-running), not-running, next-exit, removed.

    Raises NotFound, or InvalidArgument for another condition.
    """
    condition = condition or "not-running"
    if condition not in CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    container = engine.containers.find(ref)
    if condition == "not-running" and not container.state.running:
        return _done(WaitResult(exit_code=container.state.exit_code, error=""))
    future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
    entry = (condition, future)
    engine.waits.setdefault(container.id, []).append(entry)
    return _wait(engine, container.id, entry)


async def _done(result: WaitResult) -> WaitResult:
    return result


async def _wait(engine: Engine, container_id: str, entry: tuple[str, asyncio.Future[WaitResult]]) -> WaitResult:
    try:
        return await entry[1]
    finally:
        waits = engine.waits.get(container_id)
        if waits is not None and entry in waits:
            waits.remove(entry)
            if not waits:
                del engine.waits[container_id]


def wake(engine: Engine, container_id: str, conditions: tuple[str, ...], result: WaitResult) -> None:
    """Ends the waits that have one of the conditions."""
    for condition, future in engine.waits.get(container_id, ()):
        if condition in conditions and not future.done():
            future.set_result(result)
