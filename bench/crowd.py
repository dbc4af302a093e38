"""Many containers at once on one engine: what each verb takes for all of them, and what they cost in memory."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

from engines import BenchError, Engine

AT_ONCE = 10
SETTLE_S = 8

Row = tuple[str, str, float]


class _Laps:
    """What each step took."""

    def __init__(self, engine: Engine, progress: Callable[[str], None]) -> None:
        self.rows: list[Row] = []
        self._engine = engine
        self._progress = progress

    def take(self, what: str, step: Callable[[], Any]) -> Any:
        self._progress(f"{self._engine.name}: {what}")
        began = time.perf_counter()
        value = step()
        self.rows.append((what, "s", time.perf_counter() - began))
        return value


def measure_crowd(engine: Engine, count: int, progress: Callable[[str], None]) -> list[Row]:
    """Creates, starts, lists, reads, stops and removes `count` containers on the bridge, ten requests at a time."""
    laps = _Laps(engine, progress)
    ids: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:

        def each(method: str, path: str, **query: str) -> list[Any]:
            return list(pool.map(lambda one: engine.call(method, path.format(one), **query), ids))

        before = engine.memory()
        try:
            script = "echo hello; exec sleep 600"
            make = lambda _: engine.create(["sh", "-c", script], "bridge")  # noqa: E731
            ids += laps.take(f"create {count}", lambda: list(pool.map(make, range(count))))
            laps.take(f"start {count}", lambda: each("POST", "/containers/{}/start"))
            listed = laps.take("list them", lambda: engine.call("GET", "/containers/json"))
            laps.take("inspect each", lambda: each("GET", "/containers/{}/json"))
            logs = laps.take("logs of each", lambda: each("GET", "/containers/{}/logs", stdout="1"))
            laps.take("stats of each", lambda: each("GET", "/containers/{}/stats", stream="0", **{"one-shot": "1"}))
            time.sleep(SETTLE_S)
            memory = engine.memory()
            laps.take("stop each, at once", lambda: each("POST", "/containers/{}/stop", t="0"))
        finally:
            laps.take("remove each", lambda: each("DELETE", "/containers/{}", force="1"))
    addresses = {one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for one in listed}
    if len(addresses) != count or any(b"hello" not in log for log in logs):
        raise BenchError(f"{engine.name}: {len(addresses)} of {count} containers ran as they should")
    rows = [*laps.rows, ("memory of the engine then (PSS)", "MB", memory / 1e6)]
    return [*rows, ("memory per container (PSS)", "MB", (memory - before) / 1e6 / count)]


def report_crowds(docker: list[Row], other: list[Row]) -> None:
    """Prints both engines' figures side by side."""
    print("\n| many containers at once | unit | docker | tare | ratio |\n|---|---|--:|--:|--:|")
    for (what, unit, theirs), (_, _, ours) in zip(docker, other, strict=True):
        print(f"| {what} | {unit} | {theirs:.2f} | {ours:.2f} | **{ours / theirs:.3f}** |")
