"""A running container's root and mount namespace as descriptors. Enters nothing."""

from __future__ import annotations

import os

from tare.engine.engine import Live


def running_root(live: Live) -> tuple[int, int] | None:
    """(root, mount namespace) of a running process, the caller's; None if it has just ended.

    Its pid is checked to be still its own behind it. With the namespace held its mounts stay, though the last process
    may end meanwhile.
    """
    opened: list[int] = []
    try:
        opened.append(os.open(f"/proc/{live.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        opened.append(os.open(f"/proc/{live.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        if live.link.send_signal(0):
            return opened[0], opened[1]
    except (FileNotFoundError, ProcessLookupError):
        pass
    for descriptor in opened:
        os.close(descriptor)
    return None


def mounted_at(pid: int, place: str) -> bool:
    """Whether the kernel says that a process has something mounted at a place (proc_pid_mountinfo(5))."""
    escaped = place.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as lines:
            return any(line.split(b" ", 5)[4] == os.fsencode(escaped) for line in lines)
    except OSError:
        return False
