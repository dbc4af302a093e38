"""A request's body as an async stream with back-pressure, and the decoders of its framing; buffers have limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from tare.api.inflow import Inflow
from tare.errors import InvalidArgument, TooLarge

HIGH_WATER_BYTES = 1 << 20
LOW_WATER_BYTES = 1 << 18
MAX_CHUNK_LINE_BYTES = 4096
_HEX = frozenset(b"0123456789abcdefABCDEF")


class BodyTruncated(InvalidArgument):
    """The client went away, or sent nonsense, in the middle of a body."""


class BodyStream(Inflow):
    """What a client sends. Iterate it, or read it whole; the connection is paused while nobody does."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None], on_wanted: Callable[[], None]) -> None:
        super().__init__(pause, resume, HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self._on_wanted = on_wanted
        self._error: Exception | None = None
        self.complete = False

    def feed_end(self) -> None:
        """The body is whole."""
        self.complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The body will never be whole."""
        if not self.complete:
            self._error = error
            self._wake()

    async def read(self) -> bytes:
        """The next chunk; b"" at the end. Raises BodyTruncated."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            self._on_wanted()
            await self._wait()
        return self._take()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """What has come meanwhile in one piece: a reader in a thread pays for each."""
        while chunk := await self.read():
            if self._chunks:
                parts = [chunk]
                while self._chunks:
                    parts.append(await self.read())
                chunk = b"".join(parts)
            yield chunk

    async def read_whole(self, limit_bytes: int) -> bytes:
        """Everything. Raises TooLarge as soon as more than limit_bytes have come."""
        parts, size = [], 0
        while chunk := await self.read():
            size += len(chunk)
            if size > limit_bytes:
                raise TooLarge(f"request body is larger than {limit_bytes} bytes")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class SizedDecoder:
    """Cuts a body of known size out of the bytes of a connection."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.done = size == 0

    def decode(self, data: bytes, out: BodyStream) -> bytes:
        """Feeds what belongs to the body; the rest is returned."""
        if not data:
            return data
        mine = data[: self.left]
        self.left -= len(mine)
        out.feed(mine)
        self.done = self.left == 0
        return data[len(mine) :]


class ChunkedDecoder:
    """RFC 9112 section 7.1, strictly: hex size, CRLF everywhere; extensions and trailers are dropped."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # bytes left of the current chunk
        self._state = "size"
        self._trailer_bytes = 0
        self.done = False

    def decode(self, data: bytes, out: BodyStream) -> bytes:
        """Feeds what belongs to the body; the rest is returned once done. Raises BodyTruncated for bad framing."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while at < len(buffer) and not self.done:
            if self._state == "data":
                mine = buffer[at : at + self._left]
                out.feed(mine)
                at += len(mine)
                self._left -= len(mine)
                if not self._left:
                    self._state = "end"
                continue
            end = buffer.find(b"\r\n", at, at + MAX_CHUNK_LINE_BYTES + 2)
            if end < 0:
                if len(buffer) - at > MAX_CHUNK_LINE_BYTES:
                    raise BodyTruncated("chunked body: line too long")
                break
            line, at = buffer[at:end], end + 2
            self._take_line(line)
        self._buffer = b"" if self.done else buffer[at:]
        return buffer[at:] if self.done else b""

    def _take_line(self, line: bytes) -> None:
        if self._state == "end":
            if line:
                raise BodyTruncated("chunked body: chunk longer than its size")
            self._state = "size"
        elif self._state == "size":
            digits = line.partition(b";")[0].rstrip(b" \t")
            if not digits or not set(digits) <= _HEX or len(digits) > 15:
                raise BodyTruncated("chunked body: invalid chunk size")
            self._left = int(digits, 16)
            self._state = "data" if self._left else "trailer"
        elif not line:
            self.done = True
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_CHUNK_LINE_BYTES:
                raise BodyTruncated("chunked body: trailers too long")
