"""One connection under asyncio: bytes in, bytes out, half-close, TLS. The blocking face has its twin; both are small.

Raw protocol rather than asyncio's streams: those have no half-close under TLS. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, cast

from tare.client.errors import CannotConnect, ProtocolError
from tare.client.ssh import SshHost, SshPlug

if TYPE_CHECKING:
    from tare.client.host import Host
    from tare.client.tls import TlsChannel

Body = bytes | Iterable[bytes] | AsyncIterable[bytes]  # what a request may carry
MOST_WAITING_BYTES = 1 << 20
HANDSHAKE_TIMEOUT_S = 20.0


class AsyncPlug(asyncio.Protocol):
    """deadline: when waiting ends with TimeoutError, on time.monotonic's clock; None: never."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._transport: asyncio.Transport | None = None
        self._channel: TlsChannel | None = None
        self._ssh: SshPlug | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._ended = False
        self._heard = False
        self._failure: Exception | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._full = False

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._heard = True
        if self._waiting_bytes > MOST_WAITING_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._wake(self._arrival)

    def eof_received(self) -> bool:
        self._ended = True
        self._wake(self._arrival)
        return True  # we may still send

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._failure = exc or ConnectionResetError("the connection is closed")
        self._wake(self._arrival)
        self._wake(self._room)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake(self._room)

    @staticmethod
    def _wake(future: asyncio.Future[None] | None) -> None:
        if future is not None and not future.done():
            future.set_result(None)

    async def _sleep(self, future: asyncio.Future[None]) -> None:
        if self.deadline is None:
            await future
        else:
            try:
                await asyncio.wait_for(future, max(self.deadline - time.monotonic(), 0))
            except TimeoutError:
                raise TimeoutError("timed out") from None

    # -- the seam

    async def receive(self) -> bytes:
        """Some bytes, or b"" when the peer has ended its side."""
        while True:
            if self._channel is not None:
                data = self._channel.decrypt()
                self._write(self._channel.outgoing())
                if data or self._channel.input_ended:
                    return data
            raw = await self._receive_raw()
            if self._channel is None:
                return raw
            self._channel.feed(raw)

    async def _receive_raw(self) -> bytes:
        while not self._waiting:
            if self._ended:
                if self._ssh is not None and not self._heard:
                    raise ProtocolError(self._ssh.epitaph())
                return b""
            self._arrival = asyncio.get_running_loop().create_future()
            await self._sleep(self._arrival)
        data = b"".join(self._waiting)
        self._waiting.clear()
        if self._waiting_bytes > MOST_WAITING_BYTES and self._transport is not None and not self._ended:
            self._transport.resume_reading()
        self._waiting_bytes = 0
        return data

    def post(self, data: bytes) -> None:
        """Sends without waiting: what doesn't fit is sent while others wait."""
        if self._channel is not None:
            self._channel.encrypt(data)
            data = self._channel.outgoing()
        self._write(data)

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def send(self, data: bytes) -> None:
        """Sends, and waits while the peer doesn't take it. BrokenPipeError, ConnectionResetError if it is gone."""
        if self._failure is not None:
            raise ConnectionResetError(str(self._failure))
        self.post(data)
        while self._full and self._failure is None:
            self._room = asyncio.get_running_loop().create_future()
            await self._sleep(self._room)

    def end_input(self) -> None:
        """Tells the peer that nothing more comes; what it still says can be received."""
        if self._channel is not None:
            self._channel.end_output()
            self._write(self._channel.outgoing())
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def is_stale(self) -> bool:
        """Whether an idle connection can't be used: the peer ended it, or said something unasked."""
        if self._ended or self._waiting or self._transport is None:
            return True
        poller = select.poll()  # the loop may not have been told yet
        poller.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poller.poll(0))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._ssh is not None:
            self._ssh.close()

    # -- beginning

    async def secure(self, host: Host) -> None:
        """Agrees on encryption."""
        import ssl

        from tare.client.tls import TlsChannel, make_context, reason_of

        assert host.tls is not None
        channel = TlsChannel(make_context(host.tls), host.target)
        self.deadline = time.monotonic() + HANDSHAKE_TIMEOUT_S
        try:
            while not channel.shake_nowait():
                self._write(channel.outgoing())
                channel.feed(await self._receive_raw())
            self._write(channel.outgoing())
        except (OSError, ssl.SSLError) as error:
            self.close()
            raise CannotConnect(host.text, 0, reason_of(error)) from error
        self.deadline = None
        self._channel = channel

    def keep(self, ssh: SshPlug) -> None:
        """Holds the process behind the connection."""
        self._ssh = ssh


async def each_piece(body: Body) -> AsyncIterator[bytes]:
    """The pieces of a body."""
    if isinstance(body, bytes):
        yield body
    elif isinstance(body, AsyncIterable):
        async for piece in body:
            yield piece
    else:
        for piece in body:
            yield piece


async def open_plug(host: Host, deadline: float | None) -> AsyncPlug:
    """A connection to the engine. Raises CannotConnect, TimeoutError."""
    left_s = None if deadline is None else max(deadline - time.monotonic(), 0.001)
    try:
        async with asyncio.timeout(left_s):
            return await _connect(host)
    except TimeoutError:
        raise TimeoutError("timed out") from None


async def _connect(host: Host) -> AsyncPlug:
    loop = asyncio.get_running_loop()
    plug = AsyncPlug()
    try:
        if isinstance(host, SshHost):
            ssh = host.connect()
            plug.keep(ssh)
            await loop.create_connection(lambda: plug, sock=socket.socket(fileno=socket.dup(ssh.fileno())))
        elif host.unix:
            await loop.create_unix_connection(lambda: plug, host.target)
        else:
            await loop.create_connection(lambda: plug, host.target, host.port)
    except OSError as error:
        raise CannotConnect(host.text, error.errno or 0, error.strerror or str(error)) from error
    if host.tls is not None:
        await plug.secure(host)
    return plug
