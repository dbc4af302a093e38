"""What an engine knows of exec'd processes that have ended."""

from __future__ import annotations

import asyncio
import shutil
from types import SimpleNamespace
from typing import Any

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared
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
        async with asyncio.timeout(60):
            while "e1" in engine.execs:
                await asyncio.sleep(0.005)
        assert "e2" in engine.execs

    asyncio.run(life())


def test_one_whose_directory_is_gone_still_tells_its_code(tare: Engine, tared: Tared) -> None:
    """An exec that ends its container can be slower than the container's end, which takes the directory away."""
    container = tare.start(command=["sleep", "100"])
    command = ["sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; exit 7"]
    made = tare.api.request("POST", f"/containers/{container}/exec", {"Cmd": command}).json["Id"]
    tare.api.request("POST", f"/exec/{made}/start", {"Detach": True})
    shutil.rmtree(tared.exec_root / "containers" / container / "execs" / made)
    tare.docker("exec", container, "touch", "/go")

    def ended() -> bool:
        return not tare.api.request("GET", f"/exec/{made}/json").json["Running"]

    wait_until(ended, "it has ended")
    assert tare.api.request("GET", f"/exec/{made}/json").json["ExitCode"] == 7
