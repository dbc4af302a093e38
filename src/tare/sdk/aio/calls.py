"""Requests to one engine: version, connections that are used again, JSON, errors, streams. Knows no verb."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tare.client.engine import OLDEST, WRITTEN_FOR, format_query, format_version, parse_version
from tare.client.errors import NoAnswer, ProtocolError
from tare.client.host import Host
from tare.client.jsontext import format_json
from tare.client.wire import WHY_HEADER
from tare.sdk.aio.plug import Body, open_plug
from tare.sdk.aio.wire import AsyncExchange, AsyncWire

MOST_IDLE = 10
FOREVER_S = float("inf")  # for answers that come when something happens
Query = Mapping[str, Any]


def query_text(query: Query) -> str:
    """Python's values as the engine's: True is 1, None and False are left out, a mapping is JSON."""
    found: dict[str, str | list[str]] = {}
    for name, value in query.items():
        if value is None or value is False:
            continue
        if isinstance(value, Mapping):
            found[name] = format_json(dict(value))
        elif isinstance(value, list | tuple):
            found[name] = [str(item) for item in value]
        else:
            found[name] = "1" if value is True else str(value)
    return format_query(found)


def filter_values(filters: Mapping[str, Any]) -> Mapping[str, list[str]] | None:
    """{"label": ["a=b"]}, of that, {"label": "a=b"} or {"dangling": True}."""
    found: dict[str, list[str]] = {}
    for name, value in filters.items():
        items = value if isinstance(value, list | tuple) else [value]
        found[name] = [str(item).lower() if isinstance(item, bool) else str(item) for item in items]
    return found or None


class AsyncCalls:
    """version: the API's; agreed on with the engine unless it is given."""

    def __init__(self, host: Host, version: str | None, timeout_s: float | None) -> None:
        self.host = host
        self.version = version
        self.timeout_s = timeout_s
        self._idle: list[AsyncWire] = []
        self._closed = False

    async def _open(self, deadline: float | None) -> tuple[AsyncWire, bool]:
        if self._closed:
            raise ProtocolError("this client has been closed")
        while self._idle:
            wire = self._idle.pop()
            if not wire.plug.is_stale():
                return wire, True
            wire.close()
        return AsyncWire(await open_plug(self.host, deadline)), False

    async def _send(
        self, method: str, target: str, headers: Mapping[str, str], body: Body, deadline: float | None
    ) -> AsyncExchange:
        wire, used_before = await self._open(deadline)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host.http_name}", "User-Agent: Tare-Python", WHY_HEADER]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        wire.plug.deadline = deadline
        try:
            try:
                await wire.write(lines, body)
            except (BrokenPipeError, ConnectionResetError):
                if used_before and isinstance(body, bytes):
                    wire.close()
                    return await self._send(method, target, headers, body, deadline)
                # otherwise it may have answered before it had everything: read that
            status, keep, answered = await wire.read_head()
        except NoAnswer:
            wire.close()
            if used_before and method in ("GET", "HEAD"):
                return await self._send(method, target, headers, body, deadline)
            raise
        except BaseException:
            wire.close()
            raise
        exchange = AsyncExchange(wire, method, status, keep, answered)
        if len(self._idle) < MOST_IDLE and not self._closed:
            exchange.idle = self._idle
        return exchange

    async def negotiate(self) -> str:
        """The API version: the lower of what the engine offers and what this library was written for."""
        if self.version is None:
            answer = await self._send("HEAD", "/_ping", {}, b"", self._deadline(None))
            await answer.read()
            offered = parse_version(answer.headers.get("api-version", format_version(OLDEST)))
            self.version = format_version(min(offered, WRITTEN_FOR))
        return self.version

    def _deadline(self, timeout_s: float | None) -> float | None:
        limit_s = timeout_s if timeout_s is not None else self.timeout_s
        return None if limit_s is None or limit_s == FOREVER_S else time.monotonic() + limit_s

    async def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncExchange:
        """An answer whose body is still to come. body: bytes or their iterable as they are, else JSON; None: none."""
        target = f"/v{await self.negotiate()}{path}"
        asked = query_text(query) if query else ""
        extra = dict(headers or {})
        content: Body = b""
        if isinstance(body, Mapping):
            content = format_json(dict(body)).encode("utf-8", "surrogateescape")
            extra["Content-Type"] = "application/json"
        elif body is not None:
            content = body
        deadline = self._deadline(timeout_s)
        exchange = await self._send(method, f"{target}?{asked}" if asked else target, extra, content, deadline)
        if exchange.status >= 400:
            raise await exchange.failure()
        return exchange

    async def json(
        self, method: str, path: str, query: Query | None = None, body: Any = None, timeout_s: float | None = None
    ) -> Any:
        """The answer's JSON."""
        exchange = await self.open(method, path, query, body, None, timeout_s)
        return await exchange.json()

    async def do(self, method: str, path: str, query: Query | None = None, body: Any = None) -> None:
        """For the effect; "it is so already" (304) is fine."""
        exchange = await self.open(method, path, query, body)
        await exchange.read()

    async def hijack(self, path: str, query: Query | None = None, body: Any = None) -> AsyncExchange:
        """A connection that the engine hands over: raw bytes both ways (101, or the older 200)."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        exchange = await self.open("POST", path, query, body, headers)
        exchange.wire.plug.deadline = None
        return exchange

    def close(self) -> None:
        """Ends all idle connections; those in use end with their streams."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
