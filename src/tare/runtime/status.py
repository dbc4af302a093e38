"""The files of a monitor's directory: their names, and how they are written. Imports nothing heavy."""

from __future__ import annotations

import os

import msgspec

from tare.runtime import messages

SOCKET_NAME = "monitor.sock"
STATE_NAME = "state.json"
EXIT_NAME = "exit.json"


def write_state(directory: str, started: messages.Started) -> None:
    """Remembers which process was started. Raises OSError."""
    _write_aside(directory, STATE_NAME, started)


def write_exit(directory: str, exited: messages.Exited) -> None:
    """Remembers how it ended. Raises OSError."""
    _write_aside(directory, EXIT_NAME, exited)


def _write_aside(directory: str, name: str, message: messages.Started | messages.Exited) -> None:
    """Makes directory/name hold the message's fields, whole or not at all."""
    data = msgspec.json.encode({field: getattr(message, field) for field in message.__struct_fields__})
    aside = f"{directory}/.{name}.{os.getpid()}"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(aside, f"{directory}/{name}")


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)); 0 if it is gone."""
    try:
        return int(_read_small(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _read_small(path: str) -> bytes:
    """A file of /proc, without the buffers of open()."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
