"""What failed and must be done all the same: it is tried again, after longer and longer pauses, and the log tells.

Only for what is safe to repeat. What isn't done when the engine ends is found by its next start. Must never hold a lock
while it pauses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tare.engine.engine import Engine

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0

log = logging.getLogger("tare.engine")

Work = Callable[[], Awaitable[object]]


def finish_later(engine: Engine, key: str, what: str, work: Work, error: Exception) -> None:
    """`work` failed with `error`, and will be tried again with the lock of that name held; it replaces older work.

    key: a container's id, or another lock's name. what: in the log, like "remove 0123456789ab".
    """
    forget(engine, key)
    log.warning("%s failed; tried again in %.1f s", what, FIRST_PAUSE_S, exc_info=error)
    task = engine.spawn(_try_until_done(engine, key, what, work), f"finish: {what}")
    engine.unfinished[key] = (work, task)


async def _try_until_done(engine: Engine, key: str, what: str, work: Work) -> None:
    pause_s = FIRST_PAUSE_S
    while True:
        await asyncio.sleep(pause_s)
        async with engine.lock(key):
            try:
                await work()
            except Exception as error:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                log.warning("%s failed again: %s; tried again in %.1f s", what, error, pause_s)
                continue
            engine.unfinished.pop(key, None)
        log.warning("%s: done after all", what)
        return


def forget(engine: Engine, key: str) -> None:
    """It isn't tried any more: what is done instead includes it. Who may hold the lock is the caller, or nobody."""
    if key in engine.unfinished:
        engine.unfinished.pop(key)[1].cancel()


async def finish_now(engine: Engine, key: str) -> None:
    """Does at once what waits under that key, for who holds its lock; what fails goes on waiting, and raises."""
    if key in engine.unfinished:
        work, _ = engine.unfinished[key]
        await work()
        forget(engine, key)
