"""Joins a hijacked connection and a process's stdio, until one of them ends; holds nothing afterwards."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tare.api.call import Call
from tare.api.duplex import Duplex
from tare.engine.streams import AttachSession

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
GONE_GRACE_S = 5.0
"""How long input that a vanished client had sent may take to reach the process."""
LINGER_S = 1.0
"""How long a client may take to close after the end of the output, before the connection is closed for it."""


def stream_type(tty: bool, version: tuple[int, int]) -> str:
    """The content type of a stream; the framed one has a name of its own since 1.42."""
    return RAW if tty or version < (1, 42) else MULTIPLEXED


def hijack(call: Call, content_type: str) -> Duplex:
    """Takes the call's connection over, in the form that the client asked for."""
    if call.request.wants_upgrade:
        return call.request.hijack(101, {"Content-Type": content_type, "Connection": "Upgrade", "Upgrade": "tcp"})
    return call.request.hijack(200, {"Content-Type": content_type})


def frame_text(text: str, tty: bool) -> bytes:
    """A line from the engine itself, as a stream carries it."""
    line = f"{text}\r\n".encode()
    return line if tty else b"\x01\0\0\0" + len(line).to_bytes(4, "big") + line


class Stream(Protocol):
    """What join needs of a client's stream: a hijacked connection, or a WebSocket on one."""

    gone: asyncio.Event

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def end(self) -> None: ...
    async def wait_head_read(self) -> None: ...
    def feed_lost(self) -> None: ...


class Session(Protocol):
    """What join needs of a process's stdio."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    async def close(self) -> None: ...


class Unframed:
    """A session whose output comes without Docker's frames: both outputs in one stream, as WebSockets get it."""

    def __init__(self, session: AttachSession) -> None:
        self._session = session
        self._left = 0
        self._head = b""
        self.write = session.write
        self.close_stdin = session.close_stdin
        self.close = session.close

    async def read(self) -> bytes:
        """The next output; b"" at the end."""
        while data := await self._session.read():
            out = self._strip(data)
            if out:
                return out
        return b""

    def _strip(self, data: bytes) -> bytes:
        parts, at = [], 0
        while at < len(data):
            if self._left:
                parts.append(data[at : at + self._left])
                at += len(parts[-1])
                self._left -= len(parts[-1])
                continue
            wanted = 8 - len(self._head)
            self._head += data[at : at + wanted]
            at += wanted
            if len(self._head) == 8:
                self._left, self._head = int.from_bytes(self._head[4:], "big"), b""
        return b"".join(parts)


class Framed:
    """The session of a terminal whose client asked for frames: all of its output is that of stdout."""

    def __init__(self, session: AttachSession) -> None:
        self._session = session
        self.write = session.write
        self.close_stdin = session.close_stdin
        self.close = session.close

    async def read(self) -> bytes:
        """The next output in a frame; b"" at the end."""
        data = await self._session.read()
        return b"\x01\0\0\0" + len(data).to_bytes(4, "big") + data if data else b""


def in_form(session: AttachSession, *, raw: bool) -> Session:
    """The session with frames or without, whatever its process has: an exec's client says which it reads."""
    if session.tty == raw:
        return session
    return Unframed(session) if raw else Framed(session)


async def join(duplex: Stream, session: Session) -> None:
    """Copies both ways until the output ends (then the client sees EOF) or the client is gone."""
    inward = asyncio.ensure_future(_inward(duplex, session))
    outward = asyncio.ensure_future(_outward(duplex, session))
    gone = asyncio.ensure_future(duplex.gone.wait())
    try:
        await asyncio.wait((outward, gone), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            await asyncio.wait((inward,), timeout=GONE_GRACE_S)
            return
        await duplex.end()
        await session.close()
        inward.cancel()
        await _linger(duplex)
    finally:
        for task in (inward, outward, gone):
            task.cancel()
        await asyncio.gather(inward, outward, gone, return_exceptions=True)
        await session.close()


async def _inward(duplex: Stream, session: Session) -> None:
    while data := await duplex.read():
        await session.write(data)
    await session.close_stdin()


async def _outward(duplex: Stream, session: Session) -> None:
    try:
        data = await session.read()
        await duplex.wait_head_read()
        while data:
            await duplex.write(data)
            data = await session.read()
    except ConnectionError:
        duplex.feed_lost()


async def _linger(duplex: Stream) -> None:
    """Waits for the client to close. Closing while it still sends would turn its EOF into a reset (unix(7), tcp(7))."""

    async def drain() -> None:
        while await duplex.read():
            pass

    try:
        await asyncio.wait_for(drain(), LINGER_S)
    except TimeoutError:
        pass
