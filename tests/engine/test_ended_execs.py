"""What an engine knows of exec'd processes that have ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from tare.engine.engine import LiveExec
from tare.engine.execs import forget_later
from tare.engine.options import ExecOptions
from tare.engine.records import ExecRecord


def test_they_are_forgotten_after_a_while() -> None:
    """A container in which something is exec'd every second doesn't fill the engine's memory."""

    async def life() -> None:
        options = ExecOptions(cmd=("true",))
        live = LiveExec(ExecRecord(id="e1", container_id="c1", options=options, entrypoint="true", arguments=()))
        engine: Any = SimpleNamespace(execs={"e1": live, "e2": live})
        forget_later(engine, live, kept_s=0.01)
        assert "e1" in engine.execs
        async with asyncio.timeout(5):
            while "e1" in engine.execs:
                await asyncio.sleep(0.005)
        assert "e2" in engine.execs

    asyncio.run(life())
