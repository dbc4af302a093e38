"""Work that nobody waits for keeps out of the way of what somebody waits for."""

from __future__ import annotations

import threading
import time

from tare.engine import pace

DEADLINE_S = 80


def test_it_waits_while_bytes_move_and_then_goes_on() -> None:
    """As long as a client's bytes move nothing goes on; it does once they don't."""
    held = threading.Event()
    went_on_at: list[float] = []

    def work() -> None:
        keep = pace.Pace(lambda: held.set() or False)
        keep._since -= 0.2  # has worked for so long
        assert not keep()
        went_on_at.append(time.monotonic())

    thread = threading.Thread(target=work)
    last, gap_s = time.monotonic(), 0.0
    pace.bytes_moved()
    thread.start()
    assert held.wait(DEADLINE_S)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:  # longer than it rests for its own sake
        gap_s = max(gap_s, time.monotonic() - last)
        last = time.monotonic()
        pace.bytes_moved()
        threading.Event().wait(0.02)
    thread.join(DEADLINE_S)
    assert went_on_at[0] >= last + pace.QUIET_S or gap_s >= pace.QUIET_S  # on a machine that stood still meanwhile


def test_an_end_is_not_held_up() -> None:
    """A shutdown is answered though bytes move."""
    keep = pace.Pace(lambda: True)
    keep._since -= 1000  # it would rest for most of an hour
    pace.bytes_moved()
    began = time.monotonic()
    assert keep()
    assert time.monotonic() - began < 60
