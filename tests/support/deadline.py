"""Waiting for something the kernel or an engine does by itself: polls with a time limit, never a bare sleep."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = float(os.environ.get("TARE_TEST_PATIENCE", "4"))
"""How many times longer everything may take than on a quiet machine: a deadline is no claim, only an end of waiting.
scripts/vm sets it where a processor is emulated."""


def wait_until(ask: Callable[[], T], what: str, timeout_s: float = 10.0) -> T:
    """The first true answer of `ask`, within timeout_s × PATIENCE; else AssertionError with `what` and the last one."""
    timeout_s *= PATIENCE
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
