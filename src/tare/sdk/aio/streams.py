"""What comes piece by piece: log chunks, events, stats, progress; and sessions, which take input as well.

A stream opens its request when it is entered or first asked, and must be closed (or read to its end): `with` does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tare.client.duplex import Demultiplexer
from tare.client.engine import MAX_JSON_BYTES
from tare.client.errors import ProtocolError
from tare.client.jsontext import parse_json_prefix, skip_blanks
from tare.sdk.aio.calls import FOREVER_S, AsyncCalls
from tare.sdk.aio.wire import AsyncExchange
from tare.sdk.records import Chunk, Result

T = TypeVar("T")


async def read_bytes(exchange: AsyncExchange) -> AsyncGenerator[bytes, None]:
    """The body as it is."""
    async for piece in exchange.pieces():
        yield piece


async def read_chunks(exchange: AsyncExchange) -> AsyncGenerator[Chunk, None]:
    """stdout and stderr apart; of a terminal's stream everything is stdout."""
    found: list[Chunk] = []
    if not exchange.framed:
        async for piece in exchange.pieces():
            yield Chunk("stdout", piece)
        return
    frames = Demultiplexer(
        lambda data: found.append(Chunk("stdout", bytes(data))), lambda data: found.append(Chunk("stderr", bytes(data)))
    )
    async for piece in exchange.pieces():
        frames.feed(piece)
        for chunk in found:
            yield chunk
        found.clear()
    frames.finish()


async def read_documents(exchange: AsyncExchange) -> AsyncGenerator[Any, None]:
    """JSON values one after another."""
    pending = b""
    async for piece in exchange.pieces():
        pending += piece
        if not pending.rstrip().endswith((b"}", b"]")) and b"\n" not in piece:
            continue  # the value is not whole yet: don't scan it again and again
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


class AsyncStream(Generic[T]):
    """An iterator over what comes; `with` closes it."""

    def __init__(
        self,
        opener: Callable[[], Coroutine[Any, Any, AsyncExchange]],
        reader: Callable[[AsyncExchange], AsyncGenerator[Any, None]],
        convert: Callable[[Any], T],
    ) -> None:
        self._opener = opener
        self._reader = reader
        self._convert = convert
        self._exchange: AsyncExchange | None = None
        self._items: AsyncGenerator[Any, None] | None = None

    async def _opened(self) -> AsyncGenerator[Any, None]:
        if self._items is None:
            self._exchange = await self._opener()
            self._exchange.wire.plug.deadline = None
            self._items = self._reader(self._exchange)
        return self._items

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        items = await self._opened()
        return self._convert(await items.__anext__())

    def set_deadline(self, deadline: float | None) -> None:
        """After this time of time.monotonic, waiting raises TimeoutError. For a stream that was entered."""
        if self._exchange is not None:
            self._exchange.wire.plug.deadline = deadline

    async def close(self) -> None:
        """Hangs up."""
        if self._items is not None:
            await self._items.aclose()
        if self._exchange is not None:
            self._exchange.abandon()


class AsyncSession:
    """A process' input and output: of `attach`, or of an exec. Iterating gives chunks until it closes its output."""

    def __init__(self, calls: AsyncCalls, exchange: AsyncExchange, owner: str, command: str) -> None:
        self._calls = calls
        self._exchange = exchange
        self._owner = owner
        self._command = command
        self._chunks = read_chunks(exchange)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        return await self._chunks.__anext__()

    def set_deadline(self, deadline: float | None) -> None:
        """After this time of time.monotonic, waiting raises TimeoutError."""
        self._exchange.wire.plug.deadline = deadline

    async def send(self, data: bytes | str) -> None:
        """Input for the process."""
        await self._exchange.wire.plug.send(data.encode() if isinstance(data, str) else data)

    def end_input(self) -> None:
        """The end of the input; output can still be read."""
        self._exchange.wire.plug.end_input()

    async def resize(self, rows: int, columns: int) -> None:
        """The terminal's size."""
        await self._calls.do("POST", f"{self._owner}/resize", {"h": rows, "w": columns})

    async def communicate(self, input: bytes | str | None = None) -> tuple[bytes, bytes]:
        """Sends input and its end while reading everything: (stdout, stderr)."""
        if input is not None:
            self._exchange.wire.plug.post(input.encode() if isinstance(input, str) else input)
            self.end_input()
        out: list[bytes] = []
        err: list[bytes] = []
        async for chunk in self:
            (out if chunk.stream == "stdout" else err).append(chunk.data)
        return b"".join(out), b"".join(err)

    async def exit_code(self) -> int:
        """The process' exit code; waits for a container's end."""
        if self._owner.startswith("/exec/"):
            return int((await self._calls.json("GET", f"{self._owner}/json"))["ExitCode"] or 0)
        return int((await self._calls.json("POST", f"{self._owner}/wait", timeout_s=FOREVER_S))["StatusCode"])

    async def finish(self, input: bytes | str | None = None) -> Result:
        """`communicate`, and the exit code."""
        out, err = await self.communicate(input)
        return Result(await self.exit_code(), out, err, self._command)

    async def close(self) -> None:
        """Hangs up; the process goes on."""
        await self._chunks.aclose()
        self._exchange.abandon()
