"""A raw stream inside a WebSocket (RFC 6455), for attach from web pages' consoles; binary frames, no extensions.

frame = FIN+opcode (1) · MASK+length (1, 3 or 9) · mask (4, from clients) · payload
"""

from __future__ import annotations

import base64
import hashlib
import struct

from tare.api.duplex import Duplex
from tare.api.messages import Request
from tare.errors import Forbidden, InvalidArgument

MAX_FRAME_BYTES = 1 << 20
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_PROTOCOL_ERROR, _TOO_BIG, _NORMAL = 1002, 1009, 1000


class WebSocket:
    """Both directions of a stream, each chunk a frame. Has what `raw_streams.join` needs of a stream."""

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex
        self._buffer = bytearray()
        self._close_sent = False
        self.gone = duplex.gone

    async def wait_head_read(self) -> None:
        """Frames that come together with the head are understood by all clients: nothing to wait for."""

    def feed_lost(self) -> None:
        """The client is gone."""
        self._duplex.feed_lost()

    async def read(self) -> bytes:
        """What the client sent next; b"" once it closed, or broke the rules."""
        while True:
            frame = await self._read_frame()
            if frame is None:
                return b""
            opcode, payload = frame
            if opcode == _CLOSE:
                await self._send_close(_NORMAL)
                return b""
            if opcode == _PING:
                await self._send(_PONG, payload)
            elif opcode in (_CONTINUATION, _TEXT, _BINARY) and payload:
                return payload

    async def write(self, data: bytes) -> None:
        """Sends data as one frame; waits while the client reads slowly. Raises ConnectionResetError."""
        await self._send(_BINARY, data)

    async def end(self) -> None:
        """Tells the client that nothing more comes."""
        try:
            await self._send_close(_NORMAL)
        except ConnectionError:
            pass

    async def _read_frame(self) -> tuple[int, bytes] | None:
        head = await self._take(2)
        if head is None:
            return None
        opcode, length = head[0] & 0x0F, head[1] & 0x7F
        if head[0] & 0x70 or not head[1] & 0x80 or (opcode >= _CLOSE and length > 125):
            await self._send_close(_PROTOCOL_ERROR)
            return None
        if length >= 126:
            size = 2 if length == 126 else 8
            extended = await self._take(size)
            if extended is None:
                return None
            length = int.from_bytes(extended, "big")
        if length > MAX_FRAME_BYTES:
            await self._send_close(_TOO_BIG)
            return None
        mask = await self._take(4)
        payload = await self._take(length) if mask is not None else None
        if mask is None or payload is None:
            return None
        key = (mask * (length // 4 + 1))[:length]
        return opcode, (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")

    async def _take(self, size: int) -> bytes | None:
        """Just so many bytes; None if the client ends before."""
        while len(self._buffer) < size:
            data = await self._duplex.read()
            if not data:
                return None
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _send_close(self, code: int) -> None:
        if not self._close_sent:
            await self._send(_CLOSE, code.to_bytes(2, "big"))
            self._close_sent = True

    async def _send(self, opcode: int, payload: bytes) -> None:
        if self._close_sent:
            return
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, length)
        elif length < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 126, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, length)
        await self._duplex.write(head + payload)


def check_handshake(request: Request) -> None:
    """Raises InvalidArgument if this is no WebSocket request, Forbidden if a page of another origin sends it.

    A page may open a WebSocket to any host without being asked; what a browser sends carries its origin.
    """
    headers = request.headers
    if headers.get("upgrade", "").lower() != "websocket" or not request.wants_upgrade:
        raise InvalidArgument("not a websocket request: no `Upgrade: websocket`")
    if headers.get("sec-websocket-version") != "13" or not headers.get("sec-websocket-key"):
        raise InvalidArgument("not a websocket request: version 13 and a key are needed")
    origin = headers.get("origin", "")
    if origin and origin.partition("://")[2] != headers.get("host", ""):
        raise Forbidden(f"websocket from the foreign origin {origin[:200]}")


def accept(request: Request) -> WebSocket:
    """Answers the handshake and takes the connection over."""
    key = request.headers["sec-websocket-key"].encode("latin-1")
    digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
    fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": digest}
    return WebSocket(request.hijack(101, fields))
