"""How fast work goes on that nobody waits for: a quarter of one processor, and not while a client's bytes move.

Must never run at a lowered priority: a thread that holds the interpreter's lock and isn't scheduled stops the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_S = 0.5
"""How long no byte of an image, a file or an archive has moved before such work goes on."""
_WORK_S = 0.02
_SLICE_S = 0.1
REST = 3

_moved = -QUIET_S


def bytes_moved() -> None:
    """A client's bytes have just come or gone."""
    global _moved
    _moved = time.monotonic()


class Pace:
    """Asked in between by the work's thread, which it may hold for a while; says whether the work is to stop."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        self._since = time.monotonic()

    def __call__(self) -> bool:
        worked_s = time.monotonic() - self._since
        if worked_s >= _WORK_S:
            self._rest(time.monotonic() + REST * worked_s)
        return self._stopped()

    def _rest(self, until: float) -> None:
        while not self._stopped():
            left = max(until, _moved + QUIET_S) - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, _SLICE_S))
        self._since = time.monotonic()
