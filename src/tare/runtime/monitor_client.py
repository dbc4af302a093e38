"""tared's side of a monitor: how it starts, what it tells, and what can be asked of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import msgspec

from tare.runtime import messages
from tare.runtime.create import StartFailed
from tare.runtime.status import EXIT_NAME, SOCKET_NAME, STATE_NAME, start_ticks


class MonitorLink:
    """A connection to one monitor. Use it from the event loop's thread only."""

    def __init__(self, connection: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        connection.setblocking(False)
        self.started: asyncio.Future[messages.Started] = self._loop.create_future()
        self.ended: asyncio.Future[messages.Exited | None] = self._loop.create_future()
        """Done when the process has ended; None if the monitor went away without a word."""
        self._log_waiters: list[asyncio.Future[None]] = []
        self.log_written_bytes = 0
        self.pidfd = -1
        """A pidfd of the process once it has started; closed by `close_pidfd`."""
        self.started.add_done_callback(_retrieve)
        self._loop.add_reader(connection.fileno(), self._readable)

    async def wait_started(self) -> messages.Started:
        """Waits until the process runs. Raises StartFailed (with exit code 125, 126 or 127)."""
        return await asyncio.shield(self.started)

    async def wait_ended(self) -> messages.Exited | None:
        """Waits until the process has ended (None: its monitor is gone; see `read_exit`)."""
        return await asyncio.shield(self.ended)

    def attach(self, wish: messages.StreamWish, stream: socket.socket) -> None:
        """Connects a stream; the caller still has to close its copy. Raises OSError if the monitor is gone."""
        messages.send(self._connection, messages.Attach(wish), (stream.fileno(),))

    def resize(self, height: int, width: int) -> None:
        """Sets the terminal's size. Raises OSError if the monitor is gone."""
        messages.send(self._connection, messages.Resize(height, width))

    def clear_log(self) -> None:
        """Empties the log. Raises OSError if the monitor is gone."""
        messages.send(self._connection, messages.ClearLog())

    async def wait_log(self, known_bytes: int) -> None:
        """Waits until the log has more than known_bytes, or the process ends."""
        if self.ended.done() or self.log_written_bytes > known_bytes:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._log_waiters.append(waiter)
        try:
            messages.send(self._connection, messages.WatchLog(known_bytes))
        except OSError:
            return
        await waiter

    def close(self) -> None:
        """Closes the connection; the monitor goes on."""
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
        self._finish(None)

    def close_pidfd(self) -> None:
        """Lets the process's descriptor go."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def send_signal(self, number: int) -> bool:
        """Sends the process a signal; False if it has ended. Raises OSError as pidfd_send_signal(2)."""
        if self.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def _readable(self) -> None:
        try:
            received = messages.receive(self._connection)
        except BlockingIOError:
            return
        except (OSError, msgspec.DecodeError):
            received = None
        if received is None:
            self.close()
            return
        message, fds = received
        if isinstance(message, messages.Started) and self.pidfd < 0 and fds:
            self.pidfd = fds.pop()
        for fd in fds:
            os.close(fd)
        if isinstance(message, messages.Started) and not self.started.done():
            self.started.set_result(message)
        elif isinstance(message, messages.Failed) and not self.started.done():
            self.started.set_exception(StartFailed(message.message, message.exit_code))
        elif isinstance(message, messages.LogGrew):
            self.log_written_bytes = message.written_bytes
            self._wake_log_waiters()
        elif isinstance(message, messages.Exited):
            self._finish(message)

    def _finish(self, exited: messages.Exited | None) -> None:
        if not self.started.done():
            self.started.set_exception(StartFailed("the container's monitor died before it started the process", 125))
        if not self.ended.done():
            self.ended.set_result(exited)
        self._wake_log_waiters()

    def _wake_log_waiters(self) -> None:
        waiters, self._log_waiters = self._log_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _retrieve(future: asyncio.Future[messages.Started]) -> None:
    """Marks a failure as seen: whoever waits gets it; nobody has to."""
    if not future.cancelled():
        future.exception()


def connect_monitor(directory: str) -> MonitorLink | None:
    """A link to the monitor of that directory, or None if none is there any more."""
    try:
        return MonitorLink(messages.connect_in(directory, SOCKET_NAME))
    except OSError:
        return None


def read_exit(directory: str) -> messages.Exited | None:
    """What a monitor that is gone left as its process's end; None if it left nothing."""
    found = _read(directory, EXIT_NAME)
    return None if found is None else msgspec.convert(found, _ExitFile).to_message()


def process_lives(directory: str) -> int:
    """The pid of the process that a monitor started, if that same process still exists; otherwise 0."""
    found = _read(directory, STATE_NAME)
    if found is None:
        return 0
    state = msgspec.convert(found, _StateFile)
    return state.pid if state.start_ticks and start_ticks(state.pid) == state.start_ticks else 0


class _ExitFile(msgspec.Struct):
    exit_code: int
    oom_killed: bool
    finished_ns: int
    memory_peak_bytes: int = 0

    def to_message(self) -> messages.Exited:
        return messages.Exited(self.exit_code, self.oom_killed, self.finished_ns, self.memory_peak_bytes)


class _StateFile(msgspec.Struct):
    pid: int
    start_ticks: int
    started_ns: int


def _read(directory: str, name: str) -> object | None:
    try:
        with open(f"{directory}/{name}", "rb") as file:
            found: object = msgspec.json.decode(file.read())
            return found
    except (OSError, msgspec.DecodeError):
        return None
