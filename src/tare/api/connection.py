"""One HTTP/1.1 connection: requests one after the other, bodies and answers with back-pressure, hijacking.

    bytes → buffer → head → body (while the handler runs) → buffer … next head only after the answer

Only one request is taken from the buffer at a time; what a client sends ahead waits there (and then in its socket),
so that pipelining can't cost memory and bytes after a request that hijacks are never mistaken for HTTP. Knows no route
and no engine.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, cast

from tare.api.body import BodyStream, BodyTruncated, SizedDecoder
from tare.api.duplex import Duplex
from tare.api.errors import text_of
from tare.api.hangup import HangupWatch
from tare.api.head import MAX_HEAD_BYTES, BadHead, Head, parse_head
from tare.api.messages import PHRASES, Request, Response

if TYPE_CHECKING:
    from tare.api.server import Server

log = logging.getLogger("tare.api")

MAX_AHEAD_BYTES = 1 << 16
"""What may wait behind a running request before the socket is left alone."""
WRITE_HIGH_BYTES = 1 << 18
MAX_DRAIN_BYTES = 1 << 18
"""How much of a body that the handler didn't read is read for it, to keep the connection."""
WHY_HEADER = "tare-errors"
"""A request's header: who sends it reads why an answer breaks off. docs/api.md."""
MAX_REASON_BYTES = 2000
LINGER_S = 0.5
"""How long a body that nobody wants is read away after the answer, so that the answer isn't lost to a reset."""
TCP_EOF_GRACE_S = 1.0
YIELD_BYTES = 1 << 20
_date: tuple[int, bytes] = (0, b"")


def _date_line() -> bytes:
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, b"Date: " + time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode() + b"\r\n")
    return _date[1]


def format_head(status: int, headers: Mapping[str, str], *extra: bytes) -> bytes:
    """The head of an answer. extra: whole further lines."""
    lines = [f"HTTP/1.1 {status} {PHRASES.get(status, 'Status')}"]
    for name, value in headers.items():
        if "\n" in value or "\r" in value:
            value = value.replace("\r", " ").replace("\n", " ")  # no header may begin another (response splitting)
        lines.append(f"{name}: {value}")
    lines.append("")
    return b"".join(("\r\n".join(lines).encode("latin-1", "replace"), *extra, b"\r\n"))


def _broken_off(text: str) -> bytes:
    """Instead of a chunk's size: no client takes the answer for complete, and Tare's own say why it isn't."""
    return b"!%b\r\n" % " ".join(text.split()).encode("utf-8", "replace")[:MAX_REASON_BYTES]


async def _close_stream(response: Response) -> None:
    """Lets go of what a streamed body holds; the client may have left before its first chunk."""
    aclose = getattr(response.body, "aclose", None)
    if aclose is not None:
        await aclose()


class Connection(asyncio.Protocol):
    """The protocol of one accepted socket."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._handler = server.handler
        self._buffer = bytearray()
        self._scanned = 0
        self._head: Head | None = None
        self._body: BodyStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._duplex: Duplex | None = None
        self._paused: set[str] = set()
        self._write_waiter: asyncio.Future[None] | None = None
        self._continue_due = False
        self._half_closed = False
        self._lingering = False
        self._streaming = False
        self._watch: HangupWatch | None = None
        self._grace: asyncio.TimerHandle | None = None
        self.idle_since = time.monotonic()

    # -- what the loop calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        sock = transport.get_extra_info("socket")
        self._unix = sock is not None and sock.family == socket.AF_UNIX
        if sock is not None and not self._unix:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._duplex is not None:
            self._duplex.feed(data)
        elif self._body is not None and not self._body.complete:
            self._feed_body(data)
        else:
            self._buffer += data
            self._next()

    def eof_received(self) -> bool:
        self._half_closed = True
        if self._lingering:
            return False
        if self._duplex is not None:
            self._duplex.feed_end()
        elif self._task is None:
            return False
        if self._body is not None and not self._body.complete:
            self._body.fail(BodyTruncated("unexpected EOF"))
        self._watch_hangup()
        if not self._unix and self._duplex is None:
            # TCP can't tell a half-close from a close: as Go, take it for a close, but let quick answers out first.
            self._grace = asyncio.get_running_loop().call_later(TCP_EOF_GRACE_S, self._hung_up)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._end_watch()
        self.resume_writing()
        if self._body is not None:
            self._body.fail(BodyTruncated("unexpected EOF"))
        if self._duplex is not None:
            self._duplex.feed_lost()
        elif self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._write_waiter = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Takes the next request from the buffer, if none runs and its head is whole."""
        if self._task is not None:
            if len(self._buffer) > MAX_AHEAD_BYTES:
                self._pause("ahead")
            return
        while self._buffer[:2] == b"\r\n":  # RFC 9112 section 2.2: empty lines before a request are skipped
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            self._scanned = len(self._buffer)
            if self._scanned > MAX_HEAD_BYTES:
                self._refuse(431, "Request Header Fields Too Large")
            return
        if end > MAX_HEAD_BYTES:
            return self._refuse(431, "Request Header Fields Too Large")
        self._scanned = 0
        try:
            head = parse_head(bytes(self._buffer[: end + 4]))
        except BadHead as error:
            return self._refuse(error.status, error.text)
        rest = bytes(self._buffer[end + 4 :])
        self._buffer.clear()
        self._start(head, rest)

    def _start(self, head: Head, rest: bytes) -> None:
        self._head = head
        self._body = BodyStream(lambda: self._pause("body"), lambda: self._resume("body"), self._send_continue)
        self._continue_due = not head.http_1_0 and head.headers.get("expect", "").lower() == "100-continue"
        if head.decoder.done:
            self._body.complete = True
        request = Request(head.method, head.path, head.query, head.headers, self._body, self._hijack)
        self._task = asyncio.get_running_loop().create_task(self._serve(request, head))
        if not rest:
            return
        if self._body.complete:
            self._buffer += rest
            self._next()
        else:
            self._feed_body(rest)

    def _feed_body(self, data: bytes) -> None:
        assert self._head is not None and self._body is not None
        decoder = self._head.decoder
        self._continue_due = False
        try:
            rest = decoder.decode(data, self._body)
        except BodyTruncated as error:
            self._body.fail(error)
            self._pause("nonsense")
            return
        if decoder.done:
            self._body.feed_end()
            if rest:
                self._buffer += rest
                self._next()

    def _send_continue(self) -> None:
        if self._continue_due:
            self._continue_due = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _pause(self, why: str) -> None:
        if not self._paused and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused.add(why)
        if why in ("ahead", "raw"):
            self._watch_hangup()  # a paused transport doesn't notice

    def _resume(self, why: str) -> None:
        if why in self._paused:
            self._paused.discard(why)
            if not self._half_closed:
                self._end_watch()
            if not self._paused and not self._transport.is_closing():
                self._transport.resume_reading()

    # -- answering ----------------------------------------------------------------------------------------------------

    async def _serve(self, request: Request, head: Head) -> None:
        keep = False
        try:
            response = await self._handler(request)
            if response is not None and self._duplex is None:
                try:
                    keep = await self._answer(response, head)
                finally:
                    await _close_stream(response)
        except (asyncio.CancelledError, ConnectionError):
            log.debug("client gone: %s %s", head.method, head.path)
        except Exception:
            log.exception("answering %s %s failed", head.method, head.path)
        finally:
            self._finish(keep)

    async def _answer(self, response: Response, head: Head) -> bool:
        """Sends an answer; whether the connection can be kept."""
        keep = not head.close and not self._half_closed and self._server.accepting
        if self._body is not None and not self._body.complete:
            if response.reads_body:
                self._send_continue()
                keep = False
            else:
                keep = keep and await self._drain_body()
        end_line = (
            () if keep and not head.http_1_0 else (b"Connection: keep-alive\r\n" if keep else b"Connection: close\r\n",)
        )
        if isinstance(response.body, bytes):
            body = response.body
            bare = response.status in (204, 304) or response.status < 200
            size = () if bare else (b"Content-Length: %d\r\n" % len(body),)
            first = format_head(response.status, response.headers, _date_line(), *size, *end_line)
            self._transport.write(first if head.method == "HEAD" or bare else first + body)
            await self._drained()
            return keep
        return await self._answer_stream(response, response.body, head, keep, end_line)

    async def _answer_stream(
        self, response: Response, body: AsyncIterator[bytes], head: Head, keep: bool, end_line: tuple[bytes, ...]
    ) -> bool:
        self._streaming = True
        try:
            keep = keep and not head.http_1_0
            framing = (b"Connection: close\r\n",) if head.http_1_0 else (b"Transfer-Encoding: chunked\r\n", *end_line)
            self._transport.write(format_head(response.status, response.headers, _date_line(), *framing))
            if head.method == "HEAD":
                return keep
            unyielded = 0
            async for chunk in body:
                if self._transport.is_closing():
                    return False
                unyielded += len(chunk)
                if unyielded > YIELD_BYTES:  # a fast producer and a fast client would keep the loop for themselves
                    unyielded = 0
                    await asyncio.sleep(0)
                if chunk:
                    self._transport.write(chunk if head.http_1_0 else b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await self._drained()
            if not head.http_1_0:
                self._transport.write(b"0\r\n\r\n")
            return keep
        except Exception as error:
            if not head.http_1_0 and WHY_HEADER in head.headers:
                self._transport.write(_broken_off(text_of(error, f"answering {head.method} {head.path}")))
                return False
            self._transport.abort()  # a cut-off stream must not look complete
            raise

    async def _drained(self) -> None:
        if self._write_waiter is not None:
            await asyncio.shield(self._write_waiter)

    async def _drain_body(self) -> bool:
        """Reads away a small rest of a body that nobody wanted."""
        assert self._body is not None
        if self._continue_due:
            return False  # the client waits for our word; the answer itself tells it not to send
        decoder = self._head.decoder if self._head else None
        if isinstance(decoder, SizedDecoder) and decoder.left > MAX_DRAIN_BYTES:
            return False
        left = MAX_DRAIN_BYTES
        try:
            while chunk := await asyncio.wait_for(self._body.read(), 5):
                left -= len(chunk)
                if left < 0:
                    return False
        except (BodyTruncated, TimeoutError):
            return False
        return True

    def _finish(self, keep: bool) -> None:
        self._task = None
        self._streaming = False
        unread = self._body is not None and not self._body.complete and self._duplex is None
        if unread and self._body is not None:  # who reads it apart from the handler must not wait for ever
            self._body.fail(BodyTruncated("unexpected EOF"))
        self._head = self._body = None
        self._end_watch()
        self.idle_since = time.monotonic()
        if not keep or self._duplex is not None:
            if unread and not self._half_closed and not self._transport.is_closing():
                self._linger()
            else:
                self._transport.close()
            return
        self._resume("body")
        self._resume("ahead")
        if self._buffer:
            self._next()

    def _linger(self) -> None:
        """Ends our side and reads what still comes for a moment: a close with unread bytes would drop the answer."""
        self._lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        for why in tuple(self._paused):
            self._resume(why)
        asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)

    def _refuse(self, status: int, text: str) -> None:
        """Answers what could not be read as a request, and hangs up."""
        body = f"{status} {text}".encode()
        fields = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close", "Content-Length": str(len(body))}
        self._transport.write(format_head(status, fields) + body)
        self._buffer.clear()
        self._linger()

    # -- hijacking and hanging up -------------------------------------------------------------------------------------

    def _hijack(self, status: int, headers: Mapping[str, str]) -> Duplex:
        duplex = Duplex(
            self._transport, lambda: self._write_waiter, lambda: self._pause("raw"), lambda: self._resume("raw")
        )
        self._duplex = duplex
        self._transport.write(format_head(status, headers))
        if self._buffer:
            duplex.feed(bytes(self._buffer))
            self._buffer.clear()
        self._resume("ahead")
        self._resume("body")
        if self._half_closed:
            duplex.feed_end()
        if self._grace is not None:
            self._grace.cancel()
        return duplex

    def _watch_hangup(self) -> None:
        sock = self._transport.get_extra_info("socket")
        if sock is None or self._watch is not None:
            return
        self._watch = HangupWatch(sock, self._hung_up)

    def _hung_up(self) -> None:
        if self._duplex is not None:
            self._duplex.gone.set()
            self._resume("raw")  # what it sent before is still in the socket, and then comes EOF
        elif self._task is not None:
            self._task.cancel()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    # -- the server's side --------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a request runs."""
        return self._task is not None

    @property
    def answering(self) -> bool:
        """Whether a request runs whose answer hasn't begun: one that ends by itself, unlike streams."""
        return self._task is not None and not self._streaming and self._duplex is None

    def close(self) -> None:
        """Ends the connection now: a running request is cancelled, a raw stream ends."""
        if self._duplex is not None:
            self._duplex.feed_lost()
        if self._task is not None:
            self._task.cancel()
        else:
            self._transport.close()
