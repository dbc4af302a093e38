"""TLS for a client: an encrypted channel without I/O, and a socket that speaks through one, with half-close.

Imported only when an address asks for TLS (`ssl` is half of a command's start). Python's own SSLSocket can't end one
direction and go on reading the other, which attached input needs. Never falls back to plain text.

    plug.send → encrypt → channel.outgoing() → kernel        kernel → channel.feed → decrypt → plug.recv
"""

from __future__ import annotations

import _socket
import ssl

from tare.client.errors import BadHost, CannotConnect, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview

    from tare.client.host import TlsFiles

READ_BYTES = 256 << 10
RECORD_BYTES = 64 << 10
HANDSHAKE_TIMEOUT_S = 20.0


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """The client's settings: TLS 1.2 or later, the authority's certificate, our own if there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    name = files.ca
    try:
        if not files.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif files.ca:
            context.load_verify_locations(files.ca)
        else:
            context.load_default_certs()
        if files.cert or files.key:
            name = f"{files.cert} with {files.key}"
            context.load_cert_chain(files.cert, files.key)
    except FileNotFoundError as error:
        raise BadHost(f"TLS file not found: {name}") from error
    except (OSError, ssl.SSLError) as error:
        raise BadHost(f"could not load TLS material from {name}: {reason_of(error)}") from error
    return context


def reason_of(error: Exception) -> str:
    """OpenSSL's word for what went wrong, without its file and line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"tls: {error.reason.lower().replace('_', ' ')}"
    return str(error)


class TlsChannel:
    """One connection's encryption, without I/O."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.input_ended = False
        self._output_ended = False

    def shake_nowait(self) -> bool:
        """Goes on with the handshake; True when it is done. Raises ssl.SSLError if the peers don't agree."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, data: bytes) -> None:
        """What came from the network; b"" for its end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def decrypt(self) -> bytes:
        """All that can be read now."""
        pieces = []
        try:
            while piece := self._tls.read(READ_BYTES):
                pieces.append(piece)
            self.input_ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.input_ended = True  # HTTP's framing and Docker's frames tell whether it was cut off
        except ssl.SSLError as error:
            if not pieces:
                raise ProtocolError(
                    f"the engine ended the encrypted connection ({reason_of(error)}); does it ask for a client "
                    "certificate that its authority signed?"
                ) from error
        return b"".join(pieces)

    def encrypt(self, data: Buffer) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]

    def end_output(self) -> None:
        """Sends close_notify; what the peer still has to say can be read (RFC 8446 section 6.1)."""
        if not self._output_ended:
            self._output_ended = True
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # the peer's close_notify is still to come

    def outgoing(self) -> bytes:
        """What is to be sent to the network."""
        return self._outgoing.read()


class TlsPlug(_socket.socket):
    """A connected socket whose bytes are encrypted on their way. recv may give more than was asked for."""

    def __init__(self, fd: int, channel: TlsChannel) -> None:
        super().__init__(fileno=fd)
        self._channel = channel
        self._held = b""

    @property
    def has_unsent(self) -> bool:
        """Whether encrypted bytes wait for the kernel to take them (non-blocking mode only)."""
        return bool(self._held)

    def _push(self, flags: int) -> None:
        self._held += self._channel.outgoing()
        while self._held:
            self._held = self._held[super().send(self._held, flags) :]

    def recv(self, _size: int, _flags: int = 0) -> bytes:
        while True:
            data = self._channel.decrypt()
            if data or self._channel.input_ended:
                return data
            try:
                self._push(_socket.MSG_NOSIGNAL)  # an answer to a key update
            except BlockingIOError:
                pass
            self._channel.feed(super().recv(READ_BYTES))

    def send(self, data: Buffer, flags: int = 0) -> int:  # type: ignore[override]
        self._push(flags)
        piece = memoryview(data)[:RECORD_BYTES]
        self._channel.encrypt(piece)
        try:
            self._push(flags)
        except BlockingIOError:
            pass
        return len(piece)

    def sendall(self, data: Buffer, flags: int = 0) -> None:  # type: ignore[override]
        view = memoryview(data)
        while view:
            view = view[self.send(view, flags) :]

    def shutdown(self, _how: int) -> None:
        self._channel.end_output()
        try:
            self._push(_socket.MSG_NOSIGNAL)
        except BlockingIOError:
            pass


def secure(plug: _socket.socket, text: str, server_name: str, files: TlsFiles) -> TlsPlug:
    """Takes a connected socket over and agrees on encryption. text: the address in messages."""
    channel = TlsChannel(make_context(files), server_name)
    timeout_s = plug.gettimeout()
    secured = TlsPlug(plug.detach(), channel)
    secured.settimeout(timeout_s if timeout_s is not None else HANDSHAKE_TIMEOUT_S)
    try:
        while not channel.shake_nowait():
            secured._push(_socket.MSG_NOSIGNAL)
            channel.feed(_socket.socket.recv(secured, READ_BYTES))
        secured._push(_socket.MSG_NOSIGNAL)
    except (OSError, ssl.SSLError) as error:
        secured.close()
        raise CannotConnect(text, 0, reason_of(error)) from error
    secured.settimeout(timeout_s)
    return secured
