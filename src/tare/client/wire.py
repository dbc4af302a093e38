"""HTTP/1.1 on one socket: requests out, responses in, every body framing, take-over of the connection.

Reads only what it needs into one buffer. Must never import `http.client` (33 ms) nor hold a whole body in memory
unless the caller asks for it.
"""

from __future__ import annotations

import _socket

from tare.client.errors import NoAnswer, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_HEAD_BYTES = 64 << 10
MAX_CHUNK_LINE_BYTES = 4 << 10
READ_BYTES = 256 << 10
WHY_HEADER = "Tare-Errors: inline"
"""With it in a request, Tare says why it breaks an answer off (`broken_off`)."""
_NOSIGNAL = _socket.MSG_NOSIGNAL  # SIGPIPE kills this process on purpose when stdout's reader goes; not so for sockets


class Wire:
    """One connection. `buffer` holds bytes that were received but not consumed."""

    __slots__ = ("buffer", "plug")

    def __init__(self, plug: _socket.socket) -> None:
        self.plug = plug
        self.buffer = b""

    def close(self) -> None:
        self.plug.close()

    def send(self, data: bytes | memoryview) -> None:
        self.plug.sendall(data, _NOSIGNAL)

    def send_chunked(self, pieces: Iterable[bytes]) -> None:
        """A body of unknown length (RFC 9112 section 7.1)."""
        for piece in pieces:
            if piece:
                self.send(b"%x\r\n" % len(piece))
                self.send(piece)
                self.send(b"\r\n")
        self.send(b"0\r\n\r\n")

    def receive(self) -> bytes:
        """Some bytes: buffered ones first; b"" when the peer has closed its side."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        try:
            return self.plug.recv(READ_BYTES)
        except ConnectionResetError:
            return b""

    def _fill(self) -> bool:
        try:
            data = self.plug.recv(READ_BYTES)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def read_until(self, mark: bytes, limit: int) -> bytes:
        """Bytes up to and including `mark`."""
        while True:
            end = self.buffer.find(mark)
            if end >= 0:
                end += len(mark)
                data, self.buffer = self.buffer[:end], self.buffer[end:]
                return data
            if len(self.buffer) > limit:
                raise ProtocolError("the engine's answer has a head that is too long")
            if not self._fill():
                failure = ProtocolError if self.buffer else NoAnswer
                raise failure("the engine closed the connection before it answered")

    def read_some(self, most: int) -> bytes:
        """Between 1 and `most` bytes; fails if the peer has closed."""
        data = self.receive()
        if not data:
            raise ProtocolError("the engine's answer broke off (unexpected EOF)")
        if len(data) > most:
            data, self.buffer = data[:most], data[most:] + self.buffer
        return data


def broken_off(line: bytes) -> ProtocolError:
    """What to raise for a chunk that doesn't begin with its size: behind a "!" Tare says why it can't go on."""
    if line[:1] == b"!":
        return ProtocolError(f"the engine broke its answer off: {line[1:-2].decode('utf-8', 'replace')}")
    return ProtocolError(f"bad chunk size {line[:40]!r}")


class Head:
    """A response's status line and headers (names in lower case)."""

    __slots__ = ("headers", "minor", "status")

    def __init__(self, status: int, minor: int, headers: dict[str, str]) -> None:
        self.status = status
        self.minor = minor
        self.headers = headers


def read_head(wire: Wire) -> Head:
    """The next response's head; 1xx answers other than 101 are skipped."""
    while True:
        raw = wire.read_until(b"\r\n\r\n", MAX_HEAD_BYTES).decode("latin-1")
        first, *lines = raw[:-4].split("\r\n")
        version, _, rest = first.partition(" ")
        status = rest[:3]
        if version not in ("HTTP/1.1", "HTTP/1.0") or len(status) != 3 or not (status.isascii() and status.isdigit()):
            raise ProtocolError(f"the peer doesn't speak HTTP/1.1: {first[:80]!r}")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if status[0] == "1" and status != "101":
            continue
        return Head(int(status), 1 if version.endswith("1") else 0, headers)


class Body:
    """A response's body, read once, piece by piece. `reusable`: the connection can serve another request."""

    __slots__ = ("_done", "_pieces", "keep_alive", "wire")

    def __init__(self, wire: Wire, head: Head, method: str) -> None:
        self.wire = wire
        self.keep_alive = head.minor == 1 and head.headers.get("connection", "").lower() != "close"
        self._done = False
        headers = head.headers
        if method == "HEAD" or head.status in (204, 304):
            self._pieces: Iterator[bytes] = iter(())
            self._done = True
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._pieces = self._chunks()
        elif "content-length" in headers:
            text = headers["content-length"]
            if not (text.isascii() and text.isdigit()):
                raise ProtocolError(f"bad Content-Length {text!r}")
            self._done = text == "0"
            self._pieces = self._counted(int(text))
        else:
            self.keep_alive = False
            self._pieces = self._rest()

    @property
    def reusable(self) -> bool:
        return self._done and self.keep_alive

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def read(self) -> bytes:
        return b"".join(self._pieces)

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            data = self.wire.read_some(left)
            left -= len(data)
            self._done = not left
            yield data

    def _rest(self) -> Iterator[bytes]:
        while data := self.wire.receive():
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self.wire.read_until(b"\r\n", MAX_CHUNK_LINE_BYTES)
            try:
                left = int(line.partition(b";")[0], 16)
            except ValueError:
                raise broken_off(line) from None
            if left < 0:
                raise ProtocolError(f"bad chunk size {line[:40]!r}")
            if not left:
                while self.wire.read_until(b"\r\n", MAX_CHUNK_LINE_BYTES) != b"\r\n":
                    pass  # trailers mean nothing to us
                self._done = True
                return
            while left:
                data = self.wire.read_some(left)
                left -= len(data)
                yield data
            if self.wire.read_until(b"\r\n", 2) != b"\r\n":
                raise ProtocolError("a chunk is longer than it said")
