"""One connection of the blocking face: bytes in, bytes out, half-close. The asyncio face has its twin; both are small.

Knows nothing of HTTP, nor of encryption: the client's sockets bring that.
"""

from __future__ import annotations

import _socket
import select
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tare.client.errors import CannotConnect

if TYPE_CHECKING:
    from tare.client.host import Host

Body = bytes | Iterable[bytes]  # what a request may carry
READ_BYTES = 256 << 10
NOSIGNAL = _socket.MSG_NOSIGNAL


class Plug:
    """deadline: when waiting ends with TimeoutError, on time.monotonic's clock; None: never."""

    def __init__(self, raw: _socket.socket) -> None:
        self.deadline: float | None = None
        self._raw = raw
        self._posted = memoryview(b"")
        self._end_after_posted = False

    def _remaining_s(self) -> float | None:
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def receive(self) -> bytes:
        """Some bytes, or b"" when the peer has ended its side. Sends what was posted meanwhile."""
        while self._posted or getattr(self._raw, "has_unsent", False):
            data = self._exchange()
            if data is not None:
                return data
        self._raw.settimeout(self._remaining_s())
        try:
            return self._raw.recv(READ_BYTES)
        except ConnectionResetError:
            return b""

    def _exchange(self) -> bytes | None:
        """Waits until something can be received or sent; None if nothing was received."""
        self._raw.setblocking(False)
        poller = select.poll()
        poller.register(self._raw.fileno(), select.POLLIN | select.POLLOUT)
        left_s = self._remaining_s()
        for _, events in poller.poll(None if left_s is None else left_s * 1000):
            if events & ~select.POLLOUT:
                try:
                    return self._raw.recv(READ_BYTES)
                except BlockingIOError:
                    pass
                except ConnectionResetError:
                    return b""
            if events & select.POLLOUT:
                self._send_posted()
        return None

    def _send_posted(self) -> None:
        try:
            self._posted = self._posted[self._raw.send(self._posted, NOSIGNAL) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):  # the process has closed its input: drop the rest
            self._posted = memoryview(b"")
            return
        if not self._posted and self._end_after_posted:
            self._shut()

    def post(self, data: bytes) -> None:
        """Sends without waiting: what doesn't fit is sent by `receive`."""
        self._posted = memoryview(bytes(self._posted) + data)

    def send(self, data: bytes) -> None:
        """Sends, and waits while the peer doesn't take it. BrokenPipeError, ConnectionResetError if it is gone."""
        self._raw.settimeout(self._remaining_s())
        self._raw.sendall(data, NOSIGNAL)

    def end_input(self) -> None:
        """Tells the peer that nothing more comes; what it still says can be received."""
        if self._posted:
            self._end_after_posted = True
        else:
            self._shut()

    def _shut(self) -> None:
        try:
            self._raw.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # ENOTCONN: the peer was faster; its end of stream follows

    def is_stale(self) -> bool:
        """Whether an idle connection can't be used: the peer ended it, or said something unasked."""
        poller = select.poll()
        poller.register(self._raw.fileno(), select.POLLIN)
        return bool(poller.poll(0))

    def close(self) -> None:
        self._raw.close()


def each_piece(body: Body) -> Iterator[bytes]:
    """The pieces of a body."""
    return iter([body] if isinstance(body, bytes) else body)


def open_plug(host: Host, deadline: float | None) -> Plug:
    """A connection to the engine. Raises CannotConnect, TimeoutError."""
    left_s = None if deadline is None else max(deadline - time.monotonic(), 0.001)
    try:
        return Plug(host.connect(left_s))
    except CannotConnect as error:
        if isinstance(error.__cause__, TimeoutError):
            raise TimeoutError("timed out") from error
        raise
