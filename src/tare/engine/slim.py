"""Compressed layers that came in: looks in the background for ways to make them again, so that they needn't be kept.

Must never hold up a shutdown, nor take the processor from anybody who wants it.
"""

from __future__ import annotations

from tare.engine.engine import Engine, in_thread
from tare.engine.pace import Pace


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
            await in_thread(engine.layers.originals.slim, Pace(lambda: engine.shutting_down or _is_unwanted(engine)))
            if not engine.slim_again:
                break
    finally:
        engine.slimming = False


def _is_unwanted(engine: Engine) -> bool:
    """Whether nothing but the search keeps the layer that it looks at: its image was removed."""
    return engine.layers.originals.looked_at in engine.layers.only_leased
