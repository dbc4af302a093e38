"""A plain HTTP client over a unix socket that checks every answer against the OpenAPI file; knows nothing of Docker."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from support.deadline import PATIENCE
from support.openapi import check_response

observers: list[Callable[[str, str, str, int, bytes], None]] = []
"""Who is told of every answer: socket, method, path, status, body (see support.recording)."""


def tell(socket: str, method: str, path: str, status: int, body: bytes = b"") -> None:
    """Tells the observers of an answer."""
    for observer in observers:
        observer(socket, method, path, status, body)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: status, headers (names in lower case), the whole body."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of an error; Docker prints it bare to very old clients and where a stream would have begun."""
        try:
            return str(self.json["message"])
        except ValueError:
            return self.body.decode(errors="replace").strip()

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


class UnixConnection(http.client.HTTPConnection):
    """HTTPConnection on a unix socket. timeout: in seconds on a quiet machine."""

    def __init__(self, path: str, timeout: float = 30) -> None:
        super().__init__("localhost", timeout=timeout * PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class RawClient:
    """Requests to one engine, one connection each. check: whether answers must be as the OpenAPI file says."""

    def __init__(self, path: str, *, version: str = "", check: bool = True) -> None:
        self.path = path
        self.version = version
        self.check = check

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
        check: bool | None = None,
    ) -> Answer:
        """Sends one request. body: bytes as they are, None for none, anything else as JSON."""
        connection = UnixConnection(self.path, timeout)
        try:
            self._send(connection, method, self._target(path, query), body, headers)
            answer = connection.getresponse()
            got = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()
        tell(self.path, method, path, got.status, got.body)
        if self.check if check is None else check:
            check_response(method, path, got.status, got.body, got.headers.get("content-type", ""))
        return got

    @contextmanager
    def opened(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, timeout: float = 30
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer whose headers have come and whose body may still be on its way; hangs up at the end."""
        connection = UnixConnection(self.path, timeout)
        try:
            self._send(connection, method, self._target(path, query), None, None)
            answer = connection.getresponse()
            tell(self.path, method, path, answer.status)
            yield answer
        finally:
            connection.close()

    def stream(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, timeout: float = 30
    ) -> Iterator[bytes]:
        """Lines of an answer as they come; close the iterator to hang up."""
        with self.opened(method, path, query=query, timeout=timeout) as answer:
            assert answer.status == 200, (answer.status, answer.read())
            while line := answer.readline():
                yield line

    def hijack(
        self, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None, upgrade: bool = True
    ) -> tuple[int, dict[str, str], socket.socket, bytes]:
        """Takes a connection over (POST): status, headers, the socket, and bytes that came with the headers."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(20 * PATIENCE)
        sock.connect(self.path)
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"POST {self._target(path, query)} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}"]
        lines += ["Content-Type: application/json"] if data else []
        lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = sock.recv(65536)
            if not chunk:
                break
            received += chunk
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (field.partition(":") for field in fields)}
        tell(self.path, "POST", path, int(first.split()[1]))
        return int(first.split()[1]), headers, sock, rest

    def _target(self, path: str, query: Mapping[str, Any] | None) -> str:
        prefix = f"/v{self.version}" if self.version else ""
        made = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in (query or {}).items()}
        bare, mark, given = (prefix + path).partition("?")
        return quote(bare, safe="/:%@") + mark + given + (f"?{urlencode(made, doseq=True)}" if made else "")

    @staticmethod
    def _send(
        connection: UnixConnection, method: str, target: str, body: Any, headers: Mapping[str, str] | None
    ) -> None:
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, target, body=body, headers=sent)
        except BrokenPipeError:
            pass  # the engine answered without reading the body to its end: the answer can be read


def demultiplex(data: bytes) -> dict[int, bytes]:
    """Splits Docker's framed stream into its streams: {1: stdout, 2: stderr}."""
    streams: dict[int, bytes] = {1: b"", 2: b""}
    while data:
        assert len(data) >= 8 and data[0] in (0, 1, 2) and data[1:4] == b"\0\0\0", data[:40]
        size = int.from_bytes(data[4:8], "big")
        assert len(data) >= 8 + size, "a frame is cut short"
        streams[data[0]] += data[8 : 8 + size]
        data = data[8 + size :]
    return streams


def read_all(sock: socket.socket, already: bytes = b"") -> bytes:
    """Everything until the other side ends."""
    parts = [already]
    while chunk := sock.recv(1 << 16):
        parts.append(chunk)
    return b"".join(parts)
