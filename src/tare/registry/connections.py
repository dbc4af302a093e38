"""urllib3 as the transport uses it: pools whose connections tell which socket they are on, and words for its errors.

Imported with the first request to a registry, not before.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from tare.errors import system_text
from tare.registry.transport import adopt

_CONNECTIONS = 4


class _Told(HTTPConnection):
    """Hands a duplicate of the socket to the watch: it shuts the connection, whatever TLS is doing on it."""

    line: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        try:
            return self._first_that_answers()
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error

    def _first_that_answers(self) -> socket.socket:
        host, failure = self._dns_host.strip("[]"), OSError("no address")
        try:
            found = socket.getaddrinfo(host, self.port, 0, socket.SOCK_STREAM)
        except UnicodeError:
            raise LocationParseError(f"'{host}', label empty or too long") from None
        for family, kind, protocol, _, address in found:
            try:
                made = socket.socket(family, kind, protocol)
                try:
                    self._connect(made, address)
                except OSError:
                    made.close()
                    raise
            except OSError as error:
                failure = error
            else:
                return made
        raise failure

    def _connect(self, made: socket.socket, address: Any) -> None:
        """The watch has the socket before we wait for an answer: once it is shut, there will be none."""
        for option in self.socket_options or ():
            made.setsockopt(*option)
        made.setblocking(False)
        number = made.connect_ex(address)
        if self.line is not None:
            self.line.close()
        self.line = made.dup()
        adopt(self.line)
        if number in (0, errno.EINPROGRESS):
            answered = select.poll()
            answered.register(made, select.POLLOUT)
            if not answered.poll((self.timeout or 0) * 1000):
                raise TimeoutError("no answer")
            number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        made.settimeout(self.timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.line is not None:
            adopt(self.line)
        super().request(*args, **kwargs)

    def close(self) -> None:
        super().close()
        if self.line is not None:
            self.line.close()
            self.line = None


class _Secure(_Told, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Told


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


_POOLS = {"http": _PlainPool, "https": _SecurePool}


def make_pool(
    origin: str, context: Callable[[], ssl.SSLContext], proxy: str, timeouts_s: tuple[float, float]
) -> urllib3.HTTPConnectionPool:
    """Connections to one origin, perhaps through a proxy."""
    parts = urlsplit(origin)
    host = parts.hostname or ""
    timeout = urllib3.Timeout(connect=timeouts_s[0], read=timeouts_s[1])
    if proxy:
        made = urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", timeout=timeout)
        made.pool_classes_by_scheme = _POOLS
        return made.connection_from_url(origin, pool_kwargs={"ssl_context": context()} if _secure(origin) else None)
    if _secure(origin):
        return _SecurePool(host, parts.port, timeout=timeout, maxsize=_CONNECTIONS, ssl_context=context())
    return _PlainPool(host, parts.port, timeout=timeout, maxsize=_CONNECTIONS)


def _secure(origin: str) -> bool:
    return origin.startswith("https://")


def explain(error: Exception) -> str | None:
    """Why a request failed, in the words of Docker's errors; None for what is no failure of a connection."""
    if isinstance(error, NameResolutionError):
        return f"dial tcp: lookup {error.conn.host}: no such host"
    if isinstance(error, NewConnectionError):
        cause = error.__cause__ or error.__context__
        reason = str(error)
        if isinstance(cause, OSError):  # a name that isn't found has a negative number, and its own text
            number = cause.errno or 0
            reason = (system_text(number) if number > 0 else cause.strerror or str(cause)).lower()
        return f"dial tcp {error.conn.host}:{error.conn.port}: connect: {reason}"
    if isinstance(error, ConnectTimeoutError):
        return "dial tcp: i/o timeout"
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return "net/http: timeout awaiting response"
    if isinstance(error, SSLError | ssl.SSLError):
        return _tls_reason(error)
    if isinstance(error, LocationValueError):
        return str(error)
    if isinstance(error, ProtocolError):
        return "unexpected EOF" if "IncompleteRead" in str(error) else f"EOF: {error.args[-1] if error.args else error}"
    if isinstance(error, HTTPError | OSError):
        return str(error)
    return None


def _tls_reason(error: Exception) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        _, _, rest = text.partition("certificate verify failed: ")
        return f"x509: {rest.partition(' (_ssl')[0] or 'certificate is not trusted'}"
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text or "record layer failure" in text:
        return "http: server gave HTTP response to HTTPS client"
    return f"tls: {text}"
