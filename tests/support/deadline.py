"""Waiting for something the kernel or an engine does by itself: polls with a time limit, never a bare sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(ask: Callable[[], T], what: str, timeout_s: float = 10.0) -> T:
    """The first true answer of `ask`, within timeout_s; AssertionError naming `what` and the last answer otherwise."""
    end = time.monotonic() + timeout_s
    pause = 0.002
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what} (last answer: {answer!r})")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
