"""A client's connection to a process's stdio, as attach and exec give it. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

from tare.errors import InvalidArgument

READ_BYTES = 256 * 1024
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_detach_keys(text: str) -> bytes:
    """The bytes of a detach sequence such as `ctrl-p,ctrl-q` or `a,b`. Raises InvalidArgument with Docker's text."""
    codes = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            codes.append(ord(key))
            continue
        letter = key.removeprefix("ctrl-")
        if key.startswith("ctrl-") and len(letter) == 1 and "a" <= letter <= "z":
            codes.append(ord(letter) - ord("a") + 1)
        elif key.startswith("ctrl-") and letter in _CONTROL:
            codes.append(_CONTROL[letter])
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(codes)


class DetachScanner:
    """Finds the detach sequence in what a user types, across chunks."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the sequence was completed). A begun sequence is held back until it breaks off."""
        if not self._sequence:
            return data, False
        out = bytearray()
        for code in data:
            if code == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(out), True
                continue
            if self._matched:
                out += self._sequence[: self._matched]
                self._matched = 1 if code == self._sequence[0] else 0
                if self._matched:
                    continue
            out.append(code)
        return bytes(out), False


class AttachSession:
    """A duplex stream. tty: raw bytes; otherwise Docker's frames (see `tare.runtime.streams`)."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        tty: bool,
        detach_sequence: bytes = b"",
        history: AsyncIterator[bytes] | None = None,
        on_detach: Callable[[], None] | None = None,
    ) -> None:
        self.on_close: Callable[[], None] | None = None
        self.tty = tty
        self.detached = False
        self._reader = reader
        self._writer = writer
        self._scanner = DetachScanner(detach_sequence) if tty else None
        self._history = history
        self._on_detach = on_detach
        self._input_open = True

    async def read(self) -> bytes:
        """The next chunk for the client; b"" at the end: the process ended, or the user detached."""
        if self._history is not None:
            async for chunk in self._history:
                return chunk
            self._history = None
        if self.detached:
            return b""
        try:
            return await self._reader.read(READ_BYTES)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Passes the client's input on; waits while the process doesn't read. What comes after the end is dropped."""
        if not self._input_open:
            return
        if self._scanner is not None:
            data, detach = self._scanner.feed(data)
            if detach:
                self._detach()
                return
        if not data:
            return
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            self._input_open = False

    async def close_stdin(self) -> None:
        """The client has no more input."""
        if self._input_open:
            self._input_open = False
            try:
                self._writer.write_eof()
            except OSError:
                pass

    async def close(self) -> None:
        """The client is gone. May be called more than once."""
        self._input_open = False
        self._writer.close()
        if self.on_close is not None:
            self.on_close()
            self.on_close = None

    def _detach(self) -> None:
        self.detached = True
        self._input_open = False
        self._reader.feed_eof()
        self._writer.close()
        if self._on_detach is not None:
            self._on_detach()


async def open_session(
    *,
    tty: bool,
    detach_keys: str = "",
    history: AsyncIterator[bytes] | None = None,
    on_detach: Callable[[], None] | None = None,
) -> tuple[AttachSession, socket.socket]:
    """A session and the other end of its stream, which the caller gives to a monitor and closes."""
    sequence = parse_detach_keys(detach_keys or DEFAULT_DETACH_KEYS)
    ours, theirs = socket.socketpair()
    try:
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=READ_BYTES)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    session = AttachSession(reader, writer, tty=tty, detach_sequence=sequence, history=history, on_detach=on_detach)
    return session, theirs
