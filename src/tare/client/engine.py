"""The Engine API as typed calls: version negotiation, JSON, streams, hijacked connections.

Knows HTTP and Docker's conventions, no verbs: paths and bodies are the caller's. One idle connection is kept; a call
made while another streams opens its own.
"""

from __future__ import annotations

from tare.client.errors import ApiError, NoAnswer, ProtocolError
from tare.client.jsontext import format_json, parse_json, parse_json_prefix, skip_blanks
from tare.client.wire import WHY_HEADER, Body, Head, Wire, read_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from tare.client.host import Host

    Calls = list[tuple[str, dict[str, str | list[str]]]]

WRITTEN_FOR = (1, 50)  # the API version whose shapes these commands use
OLDEST = (1, 24)
MAX_JSON_BYTES = 512 << 20
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str, safe: str = "") -> str:
    """Percent-encoding (RFC 3986): for one path segment as it is, with safe="/" for a path."""
    raw = text.encode("utf-8", "surrogateescape")
    keep = _UNRESERVED | frozenset(safe.encode())
    return "".join(chr(byte) if byte in keep else f"%{byte:02X}" for byte in raw)


def format_query(query: dict[str, str | list[str]]) -> str:
    pairs = []
    for name, value in query.items():
        values = value if isinstance(value, list) else [value]
        pairs += [f"{name}={quote(one)}" for one in values]
    return "&".join(pairs)


class Response:
    """An answer whose body is still on the wire."""

    __slots__ = ("_engine", "body", "head")

    def __init__(self, engine: Engine, head: Head, body: Body) -> None:
        self._engine = engine
        self.head = head
        self.body = body

    @property
    def status(self) -> int:
        return self.head.status

    def __iter__(self) -> Iterator[bytes]:
        yield from self.body
        self._engine.take_back(self.body)

    def read(self) -> bytes:
        return b"".join(self)

    def close(self) -> None:
        """Give up the rest of the body."""
        self.body.wire.close()

    def messages(self) -> Iterator[Any]:
        """JSON values one after another, as they arrive (progress, events, stats)."""
        return parse_messages(self)


def parse_messages(pieces: Iterable[bytes]) -> Iterator[Any]:
    """The JSON values in a stream of pieces that may be cut anywhere."""
    pending = b""
    for piece in pieces:
        pending += piece
        if not pending.rstrip().endswith((b"}", b"]", b'"')) and b"\n" not in piece:
            continue  # the value is not whole yet; don't scan it again and again
        try:
            text = pending.decode("utf-8")
        except UnicodeDecodeError:
            continue
        at = 0
        while skip_blanks(text, at) < len(text):
            try:
                value, at = parse_json_prefix(text, at)
            except ValueError:
                break
            yield value
        pending = text[at:].encode()
        if len(pending) > MAX_JSON_BYTES:
            raise ProtocolError("a JSON message of the engine is too large")
    if pending.strip():
        raise ProtocolError("the engine's JSON stream broke off (unexpected EOF)")


class Engine:
    """A client of one engine. `version` is the API version agreed on, None before the first call.

    headers: the user's own, for every request.
    """

    def __init__(self, host: Host, version: str | None = None, headers: dict[str, str] | None = None) -> None:
        self.host = host
        self.own_headers = [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.version = version
        self.pinned = version is not None
        self.server_headers: dict[str, str] = {}
        self._idle: Wire | None = None

    # -- connections

    def take_back(self, body: Body) -> None:
        """A body has been read: keep its connection for the next call."""
        if body.reusable and self._idle is None:
            self._idle = body.wire
        elif self._idle is not body.wire:
            body.wire.close()

    def _open(self) -> tuple[Wire, bool]:
        if self._idle is not None:
            wire, self._idle = self._idle, None
            return wire, True
        return Wire(self.host.connect()), False

    def negotiate(self) -> str:
        """Agree on the API version: the lower of what the server offers and what this client was written for."""
        if self.version is None:
            head = self._send("HEAD", "/_ping", {}, b"").head
            self.server_headers = head.headers
            offered = parse_version(head.headers.get("api-version", "1.24"))
            self.version = format_version(min(offered, WRITTEN_FOR))
        return self.version

    def at_least(self, version: str) -> bool:
        return parse_version(self.negotiate()) >= parse_version(version)

    # -- requests

    def _send(self, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes]) -> Response:
        wire, used_before = self._open()
        fixed = isinstance(body, bytes)
        try:
            self._write(wire, method, target, headers, body)
        except (BrokenPipeError, ConnectionResetError):
            if used_before and fixed:  # the server dropped the idle connection: nothing was done
                wire.close()
                return self._send(method, target, headers, body)
            # otherwise it may have answered before it had everything: read that
        try:
            return self._read(wire, method)
        except NoAnswer:
            if used_before and method in ("GET", "HEAD"):
                return self._send(method, target, headers, body)
            raise

    def _write(
        self, wire: Wire, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes]
    ) -> None:
        head = [
            f"{method} {target} HTTP/1.1",
            f"Host: {self.host.http_name}",
            "User-Agent: Tare-Client",
            WHY_HEADER,
            *self.own_headers,
        ]
        head += [f"{name}: {value}" for name, value in headers.items()]
        if not isinstance(body, bytes):
            wire.send("\r\n".join([*head, "Transfer-Encoding: chunked", "", ""]).encode("utf-8", "surrogateescape"))
            wire.send_chunked(body)
            return
        if body or method in ("POST", "PUT"):
            head.append(f"Content-Length: {len(body)}")
        wire.send("\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + body)

    def _read(self, wire: Wire, method: str) -> Response:
        try:
            answer = read_head(wire)
        except ProtocolError:
            wire.close()
            raise
        response = Response(self, answer, Body(wire, answer, method))
        if response.body.reusable:
            self.take_back(response.body)
        return response

    def _together(self, method: str, calls: Calls) -> Iterator[Response]:
        """The same method on several paths at once, each on a connection of its own; answers in the order given."""
        most = self.host.most_connections
        for start in range(0, len(calls), most):
            wires: list[Wire] = []
            for path, query in calls[start : start + most]:
                target = self._target(path, query)
                wires.append(self._open()[0])
                self._write(wires[-1], method, target, {}, b"")
            for wire in wires:
                yield self._read(wire, method)

    def call_all(self, method: str, calls: Calls) -> Iterator[ApiError | None]:
        for response in self._together(method, calls):
            if response.status >= 400:
                yield _error_of(response)
            else:
                response.read()
                yield None

    def get_all(self, calls: Calls) -> Iterator[Any]:
        """The JSON of each, or its ApiError."""
        for response in self._together("GET", calls):
            yield _error_of(response) if response.status >= 400 else read_json(response)

    def _target(self, path: str, query: dict[str, str | list[str]] | None) -> str:
        target = f"/v{self.negotiate()}{path}"
        return f"{target}?{format_query(query)}" if query else target

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, str | list[str]] | None = None,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """One request. `body`: None, bytes or an iterable of bytes as they are, anything else as JSON."""
        extra = dict(headers or {})
        if body is None:
            content: bytes | Iterable[bytes] = b""
        elif isinstance(body, bytes):
            content = body
        elif isinstance(body, dict | list):
            content = format_json(body).encode("utf-8", "surrogateescape")
            extra.setdefault("Content-Type", "application/json")
        else:
            content = body  # type: ignore[assignment]
        response = self._send(method, self._target(path, query), extra, content)
        if response.status >= 400:
            raise _error_of(response)
        return response

    def get(self, path: str, query: dict[str, str | list[str]] | None = None) -> Any:
        return read_json(self.call("GET", path, query))

    def post(self, path: str, query: dict[str, str | list[str]] | None = None, body: object = None) -> Any:
        return read_json(self.call("POST", path, query, body))

    def delete(self, path: str, query: dict[str, str | list[str]] | None = None) -> Any:
        return read_json(self.call("DELETE", path, query))

    def hijack(self, path: str, query: dict[str, str | list[str]] | None = None, body: object = None) -> Wire:
        """A connection that the engine has handed over: raw bytes both ways (answer 101, or the older 200)."""
        content = b"" if body is None else format_json(body).encode("utf-8", "surrogateescape")
        headers = {"Content-Type": "application/json" if content else "text/plain"}
        headers |= {"Connection": "Upgrade", "Upgrade": "tcp"}
        response = self._send("POST", self._target(path, query), headers, content)
        if response.status not in (101, 200):
            raise _error_of(response)
        return response.body.wire


def parse_version(text: str) -> tuple[int, int]:
    major, _, minor = text.strip().removeprefix("v").partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise ProtocolError(f"bad API version {text!r}")
    return int(major), int(minor)


def format_version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def read_json(response: Response) -> Any:
    raw = response.read()
    if not raw.strip():
        return None
    try:
        return parse_json(raw)
    except ValueError as error:
        raise ProtocolError(f"the engine's answer is not JSON: {error}") from error


def _error_of(response: Response) -> ApiError:
    raw = response.read()
    message = raw.decode("utf-8", "replace").strip()
    try:
        parsed = parse_json(raw)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict) and isinstance(parsed.get("message"), str):
        message = parsed["message"].strip()
    if not message:
        message = f"request returned status {response.status} without a message; is this a Docker-compatible engine?"
    return ApiError(response.status, message)


def format_filters(pairs: list[str]) -> str:
    """The `filters` query value for what --filter said: {"name": {"value": true}}."""
    filters: dict[str, dict[str, bool]] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f'invalid filter "{pair}" (expected "name=value")')
        filters.setdefault(name.strip().lower(), {})[value.strip()] = True
    return format_json({name: dict(sorted(filters[name].items())) for name in sorted(filters)})
