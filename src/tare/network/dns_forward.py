"""Asks other resolvers on a container's behalf, from the host: over UDP or TCP, as the container asked.

It must never let an answer through that isn't the question's: each question has a socket and an id of its own.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Sequence

_PORT = 53
_WAIT_S = 2.0
_MOST_SERVERS = 3  # as in resolv.conf(5)
_HEADER_BYTES = 12
_TRY_ANOTHER = (2, 5)  # SERVFAIL, REFUSED


async def ask(message: bytes, servers: Sequence[str], *, stream: bool, port: int = _PORT) -> bytes | None:
    """The first useful answer to a message; None if there is none."""
    last: bytes | None = None
    for server in list(servers)[:_MOST_SERVERS]:
        identifier = secrets.token_bytes(2)
        question = identifier + message[2:]
        try:
            asked = _ask_stream(question, server, port) if stream else _ask_datagram(question, server, port)
            found = await asyncio.wait_for(asked, _WAIT_S)
        except (OSError, TimeoutError, EOFError):
            continue
        last = message[:2] + found[2:]
        if found[3] & 0xF not in _TRY_ANOTHER:
            return last
    return last


async def _ask_datagram(question: bytes, server: str, port: int) -> bytes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Answer(question, loop.create_future()), remote_addr=(server, port)
    )
    try:
        transport.sendto(question)
        return await protocol.found
    finally:
        transport.close()


class _Answer(asyncio.DatagramProtocol):
    """Waits for the datagram that answers one question."""

    def __init__(self, question: bytes, found: asyncio.Future[bytes]) -> None:
        self._question = question
        self.found = found

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        if is_answer(self._question, data) and not self.found.done():
            self.found.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.found.done():
            self.found.set_exception(exc)


async def _ask_stream(question: bytes, server: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(struct.pack(">H", len(question)) + question)
        await writer.drain()
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        found = await reader.readexactly(size)
        if not is_answer(question, found):
            raise EOFError
        return found
    finally:
        writer.close()


def is_answer(question: bytes, data: bytes) -> bool:
    """Whether data answers the question: its id, and the very same name, type and class."""
    if len(data) < _HEADER_BYTES or data[:2] != question[:2] or not data[2] & 0x80:
        return False
    asked = question[_HEADER_BYTES : _end_of_question(question)]
    return data[_HEADER_BYTES : _HEADER_BYTES + len(asked)].lower() == asked.lower()


def _end_of_question(message: bytes) -> int:
    """Where the first question ends (no compression there: nothing comes before it)."""
    position = _HEADER_BYTES
    while position < len(message) and message[position]:
        position += message[position] + 1
    return min(position + 5, len(message))
