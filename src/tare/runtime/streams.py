"""The two ends of a process's stdio in the monitor: clients' streams and the process's standard input.

Runs in the monitor; imports nothing heavy. Nothing here blocks: what the kernel doesn't take waits in a buffer.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from tare.runtime.messages import StreamWish

CHUNK_BYTES = 64 * 1024
CLOGGED_BYTES = 1 << 20
"""A client that leaves this much unread makes the process wait, as a full pipe would."""

_FRAME = struct.Struct(">BxxxI")
_STREAM_NUMBER = {"stdin": 0, "stdout": 1, "stderr": 2}


def frame(stream: str, size: int) -> bytes:
    """The header of a frame in Docker's multiplexed stream (Engine API, ContainerAttach)."""
    return _FRAME.pack(_STREAM_NUMBER[stream], size)


class AttachedStream:
    """A client's stream: gets output, gives input."""

    def __init__(self, fd: int, wish: StreamWish, framed: bool) -> None:
        """framed: put Docker's frame headers before each chunk (no terminal)."""
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)
        self.wish = wish
        self.framed = framed
        self.dead = False
        self.reads_input = wish.stdin
        self._ended = False
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0

    @property
    def has_pending(self) -> bool:
        """Whether output waits to be taken."""
        return bool(self._pending)

    @property
    def is_clogged(self) -> bool:
        """Whether so much waits that no more should be read from the process."""
        return self._pending_bytes >= CLOGGED_BYTES

    def offer(self, stream: str, data: bytes) -> None:
        """Queues output of a stream if this client wants it."""
        if not (self.wish.stdout if stream == "stdout" else self.wish.stderr):
            return
        if self.framed:
            data = frame(stream, len(data)) + data
        self._pending.append(data)
        self._pending_bytes += len(data)
        self.flush()

    def flush(self) -> None:
        """Writes what the socket takes now."""
        try:
            while self._pending:
                sent = self.socket.sendmsg(self._pending[:16], (), socket.MSG_NOSIGNAL)
                self._pending_bytes -= sent
                while self._pending and sent >= len(self._pending[0]):
                    sent -= len(self._pending.pop(0))
                if sent:
                    self._pending[0] = memoryview(self._pending[0])[sent:]
        except BlockingIOError:
            return
        except OSError:
            self._give_up()
            return
        if self._ended:
            self.dead = True

    def read_input(self) -> bytes | None:
        """Input from the client; b"" when it has no more (once), None when there is nothing just now."""
        try:
            data = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.reads_input = False
        return data

    def end(self) -> None:
        """The process has ended: close once everything is written."""
        self._ended = True
        self.reads_input = False
        self.flush()

    def close(self) -> None:
        """Closes the socket."""
        self.socket.close()

    def _give_up(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0
        self.dead = True


class Stdin:
    """The process's standard input: a pipe, or the terminal."""

    def __init__(self, fd: int, is_terminal: bool) -> None:
        self.fd = fd
        self.is_terminal = is_terminal
        self._pending = memoryview(b"")
        self._closing = False
        self._closed = False

    @property
    def has_pending(self) -> bool:
        """Whether input waits until the process reads."""
        return len(self._pending) > 0

    def write(self, data: bytes) -> None:
        """Passes data on; what doesn't fit waits. Call it only when nothing is pending."""
        if self._closed:
            return
        self._pending = memoryview(bytes(self._pending) + data) if self._pending else memoryview(data)
        self.flush()

    def flush(self) -> None:
        """Writes what the process's input takes now."""
        try:
            while self._pending:
                self._pending = self._pending[os.write(self.fd, self._pending) :]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self._pending = memoryview(b"")  # nobody reads it any more
            self._closing = True
        if self._closing:
            self.close()

    def close_when_flushed(self) -> None:
        """The client has no more input."""
        self._closing = True
        if not self.has_pending:
            self.close()

    def close(self) -> None:
        """Closes the pipe (a terminal stays: its output is read from the same descriptor)."""
        self._pending = memoryview(b"")
        if not self._closed and not self.is_terminal:
            os.close(self.fd)
        self._closed = True
