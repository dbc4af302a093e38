"""Requests and responses of the HTTP server as values; knows nothing of engines, routes or JSON keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tare.api.body import BodyStream
    from tare.api.duplex import Duplex

PHRASES: dict[int, str] = {status.value: status.phrase for status in HTTPStatus}
PHRASES[413] = "Request Entity Too Large"
# What Docker's clients look for when a connection becomes a raw stream.
PHRASES[101] = "UPGRADED"


class Request(NamedTuple):
    """One request. Header names are in lower case; path is percent-decoded, query is as sent.

    hijack: takes the connection over; the answer's status and headers are sent and both directions are raw from then.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: BodyStream
    hijack: Callable[[int, Mapping[str, str]], Duplex]

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client asked to leave HTTP (`Connection: Upgrade` with `Upgrade: tcp`)."""
        return "upgrade" in self.headers.get("connection", "").lower() and "upgrade" in self.headers


class Response(NamedTuple):
    """An answer: body is complete bytes, or a stream whose headers are sent before its first chunk exists.

    reads_body: that stream reads the request's body while it is sent.
    """

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes | AsyncIterator[bytes] = b""
    reads_body: bool = False


Handler = Callable[[Request], Awaitable[Response | None]]
"""Answers a request; None where it hijacked the connection (which is closed when the handler returns)."""
