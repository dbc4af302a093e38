"""Finding and ending the processes that one test daemon left, by a mark in their environment or their argv."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.deadline import wait_until


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return bool(state) and state[0] not in (b"Z", b"X")


def marked(mark: str) -> dict[int, str]:
    """Living processes whose environment or command line holds `mark`: {pid: command line}."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        argv = _read(Path(f"/proc/{entry}/cmdline"))
        is_marked = mark.encode() in argv or mark.encode() in _read(Path(f"/proc/{entry}/environ"))
        if is_marked and is_alive(int(entry)):
            found[int(entry)] = argv.replace(b"\0", b" ").decode(errors="replace")
    return found


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    return [int(child) for child in _read(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal; a process that is gone already is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def end_all(mark: str) -> None:
    """Kills every process with the mark and waits until none is left."""

    def none_left() -> bool:
        left = marked(mark)
        for pid in left:
            kill(pid)
        return not left

    wait_until(none_left, f"no process with {mark} is left")
