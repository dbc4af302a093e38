"""TLS under the HTTP server, with half-close, which asyncio's own TLS doesn't have: `docker run -i` over TCP needs it.

    socket → TlsProtocol → (decrypted) → Connection          Connection → TlsTransport → (encrypted) → socket

A client that has no more input sends close_notify, or just FIN; both end only its direction. Truncation can't be taken
for an end of data: HTTP's framing and Docker's frames tell. Makes no policy: the context that is handed in does.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any, cast

log = logging.getLogger("tare.api")

HANDSHAKE_TIMEOUT_S = 10.0
READ_BYTES = 1 << 16


class TlsTransport(asyncio.Transport):
    """What a Connection writes to."""

    def __init__(self, protocol: TlsProtocol, raw: asyncio.Transport) -> None:
        super().__init__()
        self._protocol = protocol
        self._raw = raw

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._protocol.pause()

    def resume_reading(self) -> None:
        self._protocol.resume()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._protocol.encrypt(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._protocol.end_output()

    def close(self) -> None:
        self._protocol.end_output(half=False)
        self._raw.close()

    def abort(self) -> None:
        self._raw.abort()


class TlsProtocol(asyncio.Protocol):
    """The protocol of one accepted socket that speaks TLS; inner gets what was decrypted."""

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._inner = inner
        self._transport: TlsTransport | None = None
        self._paused = False
        self._input_ended = self._end_told = False
        self._output_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, self._raw.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        if self._transport is None:
            return False
        self._input_ended = True
        self._advance()
        return not self._raw.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._transport is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._inner.resume_writing()

    # -- the inner side -----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """The inner protocol wants nothing more for now."""
        self._paused = True
        if not self._input_ended and not self._raw.is_closing():
            self._raw.pause_reading()

    def resume(self) -> None:
        """The inner protocol takes data again; some may lie here already decrypted."""
        self._paused = False
        if not self._input_ended and not self._raw.is_closing():
            self._raw.resume_reading()
        asyncio.get_running_loop().call_soon(self._advance)

    def encrypt(self, data: bytes | bytearray | memoryview) -> None:
        """Sends data."""
        if self._output_ended or self._raw.is_closing():
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            log.debug("TLS: %s", error)
            self._raw.abort()
            return
        self._flush()

    def end_output(self, half: bool = True) -> None:
        """Sends close_notify, and FIN if only this direction is to end."""
        if self._output_ended or self._raw.is_closing():
            return
        self._output_ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the other side's close_notify is still to come
        self._flush()
        if half:
            self._raw.write_eof()

    # -- decrypting ---------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Goes on with the handshake or with decrypting as far as what has come allows."""
        try:
            if self._transport is None:
                self._tls.do_handshake()
                self._timer.cancel()
                self._transport = TlsTransport(self, self._raw)
                self._inner.connection_made(self._transport)
            while not self._paused and not self._end_told and not self._raw.is_closing():
                data = self._tls.read(READ_BYTES)
                if not data:
                    self._input_ended = True
                    break
                self._inner.data_received(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._input_ended = True
        except ssl.SSLError as error:
            log.info("TLS: %s", error)
            self._flush()  # the alert that tells why
            self._raw.close()
            return
        self._flush()
        if self._input_ended and not self._paused and not self._end_told and self._transport is not None:
            self._end_told = True
            if not self._inner.eof_received():
                self._transport.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._raw.is_closing():
            self._raw.write(data)
