# Made from tare/sdk/aio/wire.py by scripts/sdkfaces: change that one.
"""HTTP/1.1 on one plug: a request out, an answer in, every framing of bodies, take-over of the connection.

Must never hold a whole body in memory unless asked to.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from tare.client.errors import NoAnswer, ProtocolError
from tare.client.jsontext import parse_json
from tare.client.wire import MAX_CHUNK_LINE_BYTES, MAX_HEAD_BYTES, broken_off
from tare.sdk.blocking.plug import Body, Plug, each_piece
from tare.sdk.errors import ApiError, error_of


class Wire:
    """A plug with a buffer of what was received and not consumed."""

    def __init__(self, plug: Plug) -> None:
        self.plug = plug
        self.buffer = b""

    def receive(self) -> bytes:
        """Some bytes, buffered ones first; b"" at the end."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        return self.plug.receive()

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
            more = self.plug.receive()
            if not more:
                failure = ProtocolError if self.buffer else NoAnswer
                raise failure("the engine closed the connection before it answered")
            self.buffer += more

    def read_some(self, most: int) -> bytes:
        """Between 1 and `most` bytes."""
        data = self.receive()
        if not data:
            raise ProtocolError("the engine's answer broke off (unexpected EOF)")
        if len(data) > most:
            data, self.buffer = data[:most], data[most:] + self.buffer
        return data

    def write(self, lines: list[str], body: Body) -> None:
        """A request: head lines without framing, and the body."""
        if isinstance(body, bytes):
            head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
            self.plug.send(head.encode("utf-8", "surrogateescape") + body)
            return
        head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""])
        self.plug.send(head.encode("utf-8", "surrogateescape"))
        for piece in each_piece(body):
            if piece:
                self.plug.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.plug.send(b"0\r\n\r\n")

    def read_head(self) -> tuple[int, bool, dict[str, str]]:
        """Status, whether the connection may go on, headers (names in lower case); 1xx but 101 are skipped."""
        while True:
            raw = (self.read_until(b"\r\n\r\n", MAX_HEAD_BYTES)).decode("latin-1")
            first, *lines = raw[:-4].split("\r\n")
            protocol, _, rest = first.partition(" ")
            status = rest[:3]
            if protocol not in ("HTTP/1.1", "HTTP/1.0") or not (status.isascii() and status.isdigit()):
                raise ProtocolError(f"the peer doesn't speak HTTP/1.1: {first[:80]!r}")
            headers: dict[str, str] = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            if status[0] == "1" and status != "101":
                continue
            return int(status), protocol == "HTTP/1.1" and headers.get("connection", "").lower() != "close", headers

    def close(self) -> None:
        self.plug.close()


class Exchange:
    """An answer whose body is still on the wire. idle: where the wire goes when the body has been read."""

    def __init__(self, wire: Wire, method: str, status: int, keep: bool, headers: Mapping[str, str]) -> None:
        self.wire = wire
        self.status = status
        self.headers = headers
        self.idle: list[Wire] | None = None
        self.done = False
        self.framed = True  # a raw stream is Docker's frames, unless a terminal made it
        self._keep = keep
        self._bodiless = method == "HEAD" or status in (204, 304)

    def pieces(self) -> Generator[bytes, None, None]:
        """The body as it comes."""
        whole = False
        try:
            if self._bodiless:
                pass
            elif "chunked" in self.headers.get("transfer-encoding", "").lower():
                for piece in self._chunks():
                    yield piece
            elif "content-length" in self.headers:
                for piece in self._counted(self.headers["content-length"]):
                    yield piece
            else:
                self._keep = False
                while data := self.wire.receive():
                    yield data
            whole = True
        finally:
            self._finish(whole)

    def _finish(self, whole: bool) -> None:
        self.done = True
        if whole and self._keep and self.idle is not None:
            self.wire.plug.deadline = None
            self.idle.append(self.wire)
        else:
            self.wire.close()

    def _counted(self, text: str) -> Generator[bytes, None, None]:
        if not (text.isascii() and text.isdigit()):
            raise ProtocolError(f"bad Content-Length {text!r}")
        left = int(text)
        while left:
            data = self.wire.read_some(left)
            left -= len(data)
            yield data

    def _chunks(self) -> Generator[bytes, None, None]:
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
                return
            while left:
                data = self.wire.read_some(left)
                left -= len(data)
                yield data
            if self.wire.read_until(b"\r\n", 2) != b"\r\n":
                raise ProtocolError("a chunk is longer than it said")

    def abandon(self) -> None:
        """Hangs up, unless the body has been read."""
        if not self.done:
            self.done = True
            self.wire.close()

    def read(self) -> bytes:
        """The whole body."""
        found = []
        for piece in self.pieces():
            found.append(piece)
        return b"".join(found)

    def json(self) -> Any:
        """The body as JSON, None if it is empty."""
        raw = self.read()
        if not raw.strip():
            return None
        try:
            return parse_json(raw)
        except ValueError as error:
            raise ProtocolError(f"the engine's answer is not JSON: {error}") from error

    def failure(self) -> ApiError:
        """The error that the answer is."""
        raw = self.read()
        message = raw.decode("utf-8", "replace").strip()
        try:
            parsed = parse_json(raw)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict) and isinstance(parsed.get("message"), str):
            message = parsed["message"].strip()
        return error_of(self.status, message or f"request returned status {self.status} without a message")
