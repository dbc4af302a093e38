"""Carries bytes between a hijacked connection and local descriptors, both ways at once, on one thread.

Must never stop reading one direction because the other is full: `cat` through a container would lock up. Holds one
piece per direction, so memory stays flat whatever the amount.
"""

from __future__ import annotations

import _socket
import os

from tare.client.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tare.client.wire import Wire

READ_BYTES = 64 << 10
SOCKET_READ_BYTES = 256 << 10
FRAME_HEAD_BYTES = 8


def write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # a terminal or pipe that somebody else made non-blocking
            import select

            select.select([], [fd], [])


class Demultiplexer:
    """Splits Docker's stdcopy stream: frames of {stream, 0, 0, 0, size as big-endian uint32} and that many bytes.

    Stream 1 is stdout, 2 stderr, 0 (stdin echoed back) goes to stdout, 3 is an error text of the engine.
    """

    def __init__(self, stdout: Callable[[memoryview], None], stderr: Callable[[memoryview], None]) -> None:
        self._sinks = {0: stdout, 1: stdout, 2: stderr}
        self._head = b""
        self._stream = 0
        self._left = 0
        self._error = b""

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._left:
                piece = view[: self._left]
                view = view[len(piece) :]
                self._left -= len(piece)
                self._deliver(piece)
                continue
            missing = FRAME_HEAD_BYTES - len(self._head)
            self._head += bytes(view[:missing])
            view = view[missing:]
            if len(self._head) == FRAME_HEAD_BYTES:
                self._stream = self._head[0]
                self._left = int.from_bytes(self._head[4:], "big")
                self._head = b""
                if self._stream > 3:
                    raise ProtocolError(f"Unrecognized input header: {self._stream}")

    def _deliver(self, piece: memoryview) -> None:
        if self._stream != 3:
            self._sinks[self._stream](piece)
            return
        self._error += bytes(piece)
        if not self._left:
            raise ProtocolError("error from daemon in stream: " + self._error.decode("utf-8", "replace"))

    def finish(self) -> None:
        if self._left or self._head:
            raise ProtocolError("the engine's stream broke off (unexpected EOF)")


class Duplex:
    """One exchange over a hijacked wire.

    stdin_fd: where input comes from, None for none. receive: called with what arrives. on_wakeup: called with what
    arrives on wakeup_fd (signal numbers). filter_input: changes input on its way; None from it means "let go".
    `run` returns when the peer closes its side, or at None, after which `detached` is true.
    """

    def __init__(
        self,
        wire: Wire,
        stdin_fd: int | None,
        receive: Callable[[bytes], None],
        wakeup_fd: int | None = None,
        on_wakeup: Callable[[bytes], None] | None = None,
        filter_input: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self.wire = wire
        self.stdin_fd = stdin_fd
        self.receive = receive
        self.wakeup_fd = wakeup_fd
        self.on_wakeup = on_wakeup
        self.filter_input = filter_input
        self.detached = False
        self._outgoing = memoryview(b"")
        self._encrypts = hasattr(wire.plug, "has_unsent")

    def run(self) -> None:
        import select

        if self.wire.buffer:
            self.receive(self.wire.receive())
        plug = self.wire.plug
        plug.setblocking(False)
        poller = select.poll()
        socket_fd = plug.fileno()
        registered: dict[int, int] = {}
        while True:
            wanted = {socket_fd: select.POLLIN}
            if self._outgoing or (self._encrypts and self.wire.plug.has_unsent):  # type: ignore[attr-defined]
                wanted[socket_fd] |= select.POLLOUT
            elif self.stdin_fd is not None:
                wanted[self.stdin_fd] = select.POLLIN
            if self.wakeup_fd is not None:
                wanted[self.wakeup_fd] = select.POLLIN
            if wanted != registered:
                for fd in registered.keys() - wanted.keys():
                    poller.unregister(fd)
                for fd, events in wanted.items():
                    poller.register(fd, events)
                registered = wanted
            for fd, events in poller.poll():
                if fd == self.stdin_fd:
                    self._read_stdin(usable=not events & select.POLLNVAL)
                    if self.detached:
                        return
                elif fd == self.wakeup_fd:
                    arrived = os.read(fd, 512)
                    if self.on_wakeup is not None:
                        self.on_wakeup(arrived)
                elif fd == socket_fd:
                    if events & select.POLLOUT:
                        self._flush()
                    if events & ~select.POLLOUT and not self._read_socket():
                        return

    def _read_stdin(self, usable: bool) -> None:
        assert self.stdin_fd is not None
        try:
            data = os.read(self.stdin_fd, READ_BYTES) if usable else b""
        except BlockingIOError:
            return
        except OSError:  # EIO: our terminal went away
            data = b""
        if not data:
            self.stdin_fd = None
            self._half_close()
            return
        if self.filter_input is not None:
            filtered = self.filter_input(data)
            if filtered is None:
                self.detached = True
                return
            data = filtered
        self._outgoing = memoryview(data)
        self._flush()

    def _half_close(self) -> None:
        try:
            self.wire.plug.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # ENOTCONN: the peer was faster; its end of stream follows

    def _flush(self) -> None:
        try:
            sent = self.wire.plug.send(self._outgoing, _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):  # the process has closed its stdin: drop the rest
            self._outgoing = memoryview(b"")
            self.stdin_fd = None
            return
        self._outgoing = self._outgoing[sent:]

    def _read_socket(self) -> bool:
        try:
            data = self.wire.plug.recv(SOCKET_READ_BYTES)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if data:
            self.receive(data)
        return bool(data)
