"""A connection that left HTTP: raw bytes both ways, half-close included; never speaks HTTP again."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable

from tare.api.inflow import Inflow

HIGH_WATER_BYTES = 1 << 18
LOW_WATER_BYTES = 1 << 16
HEAD_WAIT_S = 0.25
"""How long output waits for a client to read the head of the answer."""


class Duplex(Inflow):
    """Both directions of a hijacked connection."""

    def __init__(
        self,
        transport: asyncio.Transport,
        wait_writable: Callable[[], asyncio.Future[None] | None],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        super().__init__(pause, resume, HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self._transport = transport
        self._wait_writable = wait_writable
        self._ended = False
        self.gone = asyncio.Event()
        """Set once the client has closed the connection for good (a half-close doesn't)."""

    def feed_end(self) -> None:
        """The client won't send any more."""
        self._ended = True
        self._wake()

    def feed_lost(self) -> None:
        """The client is gone."""
        self.gone.set()
        self.feed_end()

    async def read(self) -> bytes:
        """What the client sent next; b"" once it won't send more."""
        while not self._chunks:
            if self._ended:
                return b""
            await self._wait()
        return self._take()

    async def wait_head_read(self) -> None:
        """Waits a moment until a client on a unix socket has taken the answer's head off it.

        docker-py reads the head through a buffer and what follows from the socket beneath it: output that arrives
        together with the head would be lost on it (with Docker, output never comes that early). SIOCOUTQ tells what
        the other side hasn't read (unix(7)).
        """
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return
        pause_s, left_s = 0.0002, HEAD_WAIT_S
        while left_s > 0 and not self.gone.is_set() and not self._transport.is_closing():
            unread = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
            if unread == 0:
                return
            await asyncio.sleep(pause_s)
            left_s -= pause_s
            pause_s = min(pause_s * 2, 0.01)

    async def write(self, data: bytes) -> None:
        """Sends data; waits while the client reads slowly. Raises ConnectionResetError once it is gone."""
        if self.gone.is_set() or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        waiter = self._wait_writable()
        if waiter is not None:
            await waiter

    async def end(self) -> None:
        """The same as write_eof, by the name that all streams share."""
        self.write_eof()

    def write_eof(self) -> None:
        """Tells the client that nothing more comes."""
        if not self._transport.is_closing():
            self._transport.write_eof()
