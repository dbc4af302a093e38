"""Reads one request's head with the compiled parser, and says how its body is framed; refuses what smugglers send."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

import httptools

from tare.api.body import ChunkedDecoder, SizedDecoder

MAX_HEAD_BYTES = 1 << 20
"""As Go's net/http."""
MAX_HEADERS = 1000
_SINGLE = frozenset(("host", "content-length", "transfer-encoding"))


class BadHead(Exception):
    """Not an HTTP request that this server takes; args: status, sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Head(NamedTuple):
    """A parsed head. close: whether the connection ends after the answer."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    http_1_0: bool
    close: bool
    decoder: SizedDecoder | ChunkedDecoder


class _Collector:
    """What httptools calls; keeps the raw parts."""

    __slots__ = ("complete", "headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip()
        headers = self.headers
        if key not in headers:
            if len(headers) >= MAX_HEADERS:
                raise BadHead(431, "Request Header Fields Too Large")
            headers[key] = text
        elif key in _SINGLE:
            raise BadHead(400, f"Bad Request: too many {key} headers")
        else:
            headers[key] += ", " + text

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_head(data: bytes) -> Head:
    """data: the head with its empty line, nothing after it. Raises BadHead."""
    seen = _Collector()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # whether to leave HTTP is the handler's choice
    except httptools.HttpParserCallbackError as error:
        raise error.__context__ if isinstance(error.__context__, BadHead) else BadHead(400, "Bad Request") from error
    except httptools.HttpParserError as error:
        raise BadHead(400, "Bad Request") from error
    if not seen.complete:
        raise BadHead(400, "Bad Request")
    version = parser.get_http_version()
    if version not in ("1.0", "1.1"):
        raise BadHead(505, "HTTP Version Not Supported")
    path, query = _split_target(seen.target)
    old = version == "1.0"
    connection = seen.headers.get("connection", "").lower()
    close = "close" in connection or (old and "keep-alive" not in connection)
    method = parser.get_method().decode("ascii")
    return Head(method, path, query, seen.headers, old, close, _framing(seen.headers, old))


def _split_target(target: bytes) -> tuple[str, str]:
    text = target.decode("latin-1")
    if not text.startswith("/"):
        scheme, found, rest = text.partition("://")
        if not found or not scheme.isalpha():
            if text != "*":
                raise BadHead(400, "Bad Request: invalid request target")
        else:
            text = "/" + rest.partition("/")[2]
    raw, _, query = text.partition("#")[0].partition("?")
    path = unquote(raw, errors="replace") if "%" in raw else raw
    return path, query


def _framing(headers: dict[str, str], http_1_0: bool) -> SizedDecoder | ChunkedDecoder:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if http_1_0 or length is not None:
            raise BadHead(400, "Bad Request: ambiguous body framing")
        if coding.lower() != "chunked":
            raise BadHead(501, f"Unsupported transfer encoding: {coding[:64]}")
        return ChunkedDecoder()
    if length is None:
        return SizedDecoder(0)
    if not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise BadHead(400, "Bad Request: bad Content-Length")
    return SizedDecoder(int(length))
