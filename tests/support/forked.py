"""A deed in a forked child in which a fault point fails, kills or fills the disk: for rooms without a daemon."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import TypeVar

from tare import errors, faults

T = TypeVar("T")
FAILED = (faults.InjectedFault, errors.ResourceExhausted)


def begin(point: str, passage: int, action: str, setup: Callable[[], T], deed: Callable[[T], object]) -> int:
    """Forks the child, which fails at that passage of the point during the deed, not while it sets up."""
    child = os.fork()
    if child == 0:
        try:
            made = setup()
            faults._name, faults._action, faults._left = point, action, passage
            deed(made)
        except FAILED:
            os._exit(3)
        except BaseException:
            traceback.print_exc()
            os._exit(4)
        os._exit(0 if faults._left > 0 else 3)  # what fails may be put off, or be no failure of the deed's
    return child


def end(child: int) -> bool:
    """Waits for it; whether it got through without coming to the passage. AssertionError if it failed otherwise."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) in (0, 3), "it failed in another way"
    return os.WEXITSTATUS(status) == 0
