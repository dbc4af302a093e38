"""Connections to log servers that come up by themselves, and say when they broke. Every wait has an end."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterable
from typing import Protocol

from tare.engine.log_driver_options import Address

CONNECT_S = 10.0
SEND_S = 30.0
LOCAL_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")


class Connection(Protocol):
    """What a sink sends through."""

    async def send(self, messages: Iterable[bytes]) -> None:
        """Sends whole messages. Raises OSError, TimeoutError."""

    async def close(self) -> None:
        """Closes it; the next send opens it again."""


class Datagrams:
    """Messages as datagrams, over UDP or a unix socket. One that is too large for the socket is left out."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self.too_large = 0

    async def send(self, messages: Iterable[bytes]) -> None:
        """Raises OSError if the server's machine says that nobody listens, TimeoutError if nobody takes them."""
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._socket = await self._open()
        try:
            async with asyncio.timeout(SEND_S):
                for message in messages:
                    try:
                        await loop.sock_sendall(self._socket, message)
                    except OSError as error:
                        if error.errno != errno.EMSGSIZE:
                            raise
                        self.too_large += 1
        except OSError:
            await self.close()
            raise

    async def _open(self) -> socket.socket:
        if self._address.scheme == "unixgram":
            return _connected(socket.AF_UNIX, self._address.path)
        async with asyncio.timeout(CONNECT_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                self._address.host, self._address.port, type=socket.SOCK_DGRAM
            )
        return _connected(found[0][0], found[0][4])

    async def close(self) -> None:
        """Closes it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.connect(address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


class Stream:
    """Messages one after the other, over TCP, TLS or a unix socket."""

    def __init__(self, address: Address, context: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._context = context
        self.reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, messages: Iterable[bytes]) -> None:
        """Raises OSError, TimeoutError; then the connection is closed, and what was sent may have got there or not."""
        try:
            writer = await self._open()
            async with asyncio.timeout(SEND_S):
                for message in messages:
                    writer.write(message)
                await writer.drain()
                # drain() waits only above a mark; nothing is called sent that isn't in the kernel's hands
                while writer.transport.get_write_buffer_size():
                    writer.transport.set_write_buffer_limits(high=0)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            await self.close()
            raise

    async def _open(self) -> asyncio.StreamWriter:
        if self._writer is not None and self.reader is not None:
            if not self.reader.at_eof() and not self._writer.is_closing():
                return self._writer
            await self.close()  # the server hung up
        address = self._address
        async with asyncio.timeout(CONNECT_S):
            if address.scheme == "unix":
                opened = await asyncio.open_unix_connection(address.path)
            else:
                opened = await asyncio.open_connection(address.host, address.port, ssl=self._context)
        self.reader, self._writer = opened
        return self._writer

    async def close(self) -> None:
        """Closes it."""
        writer, self._writer, self.reader = self._writer, None, None
        if writer is not None:
            writer.close()
            try:
                async with asyncio.timeout(1):
                    await writer.wait_closed()
            except (OSError, asyncio.CancelledError):
                writer.transport.abort()


class LocalSyslog:
    """The machine's own syslog socket, wherever it is, datagram or stream."""

    def __init__(self) -> None:
        self._found: Connection | None = None

    async def send(self, messages: Iterable[bytes]) -> None:
        """Raises FileNotFoundError if this machine has none."""
        if self._found is not None:
            await self._found.send(messages)
            return
        messages = list(messages)
        failure: OSError = FileNotFoundError(errno.ENOENT, "no syslog socket on this machine", LOCAL_SOCKETS[0])
        for path in LOCAL_SOCKETS:
            for connection in (Datagrams(Address("unixgram", path=path)), Stream(Address("unix", path=path))):
                try:
                    await connection.send(messages)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    failure = error
                    continue
                self._found = connection
                return
        raise failure

    async def close(self) -> None:
        """Closes it."""
        if self._found is not None:
            await self._found.close()
            self._found = None
