"""Work that goes on though its client has hung up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tare.engine.engine import Engine
from tare.errors import Conflict


def test_a_failure_that_nobody_waits_for_is_told_once_and_shortly(caplog: pytest.LogCaptureFixture) -> None:
    """It goes on, and its refusal is one line in the log, not the loop's complaint with a traceback."""
    engine = Engine.__new__(Engine)
    engine._tasks = set()
    went_on: list[bool] = []
    complaints: list[dict[str, Any]] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        begun, go = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            await go.wait()
            went_on.append(True)
            raise Conflict("too late")

        waiting = asyncio.create_task(engine.uninterrupted(work(), "work 1"))
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        while engine._tasks:
            await asyncio.sleep(0)

    asyncio.run(scene())
    assert went_on and not complaints
    assert [record.getMessage() for record in caplog.records] == ["work 1 failed after its client had left: too late"]
    assert not caplog.records[0].exc_info
