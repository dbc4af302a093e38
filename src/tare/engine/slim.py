"""Compressed layers that came in: looks in the background for ways to make them again, so that they needn't be kept.

Must never hold up a shutdown, nor take the processor from anybody who wants it.
"""

from __future__ import annotations

import os
import threading

from tare.engine.engine import Engine, in_thread

_NICE = 15


def slim_soon(engine: Engine) -> None:
    """One search at a time, however often it is asked for; what comes in meanwhile is found by the same."""
    if engine.slimming or engine.shutting_down:
        engine.slim_again = True
        return
    engine.slimming = True
    engine.spawn(_slim(engine), "look how compressed layers are made")


async def _slim(engine: Engine) -> None:
    try:
        while not engine.shutting_down:
            engine.slim_again = False
            await in_thread(_search, engine)
            if not engine.slim_again:
                break
    finally:
        engine.slimming = False


def _search(engine: Engine) -> None:
    """In a thread of its own, since a lowered priority can't always be raised again."""

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        engine.layers.originals.slim(lambda: engine.shutting_down)

    thread = threading.Thread(target=work, name="tare-slim", daemon=True)
    thread.start()
    thread.join()
