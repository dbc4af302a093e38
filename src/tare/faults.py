"""Named fault points: places where a test makes this process fail or die, as a crash would.

`TARE_FAULT=name` raises at that point, `TARE_FAULT=name:kill` sends SIGKILL to the process there, and
`TARE_FAULT=name@3` does so at the third passage. Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

_armed = os.environ.get("TARE_FAULT", "")


class InjectedFault(RuntimeError):
    """Raised by an armed fault point."""


def _parse(text: str) -> tuple[str, str, int]:
    name, _, action = text.partition(":")
    name, _, count = name.partition("@")
    return name, action or "raise", int(count or 1)


_name, _action, _left = _parse(_armed)


def point(name: str) -> None:
    """Passes the fault point `name`; raises InjectedFault or kills the process if the environment asks for it."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        if _action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise InjectedFault(name)
