"""Named fault points: places where a test makes this process fail or die, as a crash would.

`TARE_FAULT=name` raises at that point, `TARE_FAULT=name:kill` sends SIGKILL to the process there,
`TARE_FAULT=name:full` raises what a system call does on a full disk, and `TARE_FAULT=name@3` does so at the third
passage. Without these variables a point costs two comparisons.

`TARE_FAULT_FILE=path` takes the same from a file that may change while the process runs (what stands behind a # makes
it new), and writes the points that are passed to `path.passed`: a sweep knows what there is to try, and needs no new
process for each.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import NoReturn

_armed = os.environ.get("TARE_FAULT", "")
_file = os.environ.get("TARE_FAULT_FILE", "")


class InjectedFault(RuntimeError):
    """Raised by an armed fault point."""


def _parse(text: str) -> tuple[str, str, int]:
    name, _, action = text.partition("#")[0].partition(":")
    name, _, count = name.partition("@")
    return name, action or "raise", int(count or 1)


_name, _action, _left = _parse(_armed)


def point(name: str) -> None:
    """Passes the fault point `name`; raises InjectedFault or kills the process if the environment asks for it."""
    global _left
    if _file:
        _read_file(name)
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        strike(_action, name)


def strike(action: str, name: str) -> NoReturn:
    """What happens at an armed point: "kill", "full" (OSError with ENOSPC), else InjectedFault."""
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    raise InjectedFault(name)


def _read_file(name: str) -> None:
    """Takes up what the file says now. Where it can't be seen any more (inside a container) the last word holds."""
    global _armed, _name, _action, _left
    try:
        passed_fd = os.open(f"{_file}.passed", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return  # nobody listens
    os.write(passed_fd, f"{name}\n".encode())
    os.close(passed_fd)
    fd = os.open(_file, os.O_RDONLY | os.O_CLOEXEC)
    text = os.read(fd, 200).decode()
    os.close(fd)
    if text != _armed:
        _armed = text
        _name, _action, _left = _parse(text)
