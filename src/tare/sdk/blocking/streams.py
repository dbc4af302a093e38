# Made from tare/sdk/aio/streams.py by scripts/sdkfaces: change that one.
"""What comes piece by piece: log chunks, events, stats, progress; and sessions, which take input as well.

A stream opens its request when it is entered or first asked, and must be closed (or read to its end): `with` does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tare.client.duplex import Demultiplexer
from tare.client.engine import MAX_JSON_BYTES
from tare.client.errors import ProtocolError
from tare.client.jsontext import parse_json_prefix, skip_blanks
from tare.sdk.blocking.calls import FOREVER_S, Calls
from tare.sdk.blocking.wire import Exchange
from tare.sdk.records import Chunk, Result

T = TypeVar("T")


def read_bytes(exchange: Exchange) -> Generator[bytes, None, None]:
    """The body as it is."""
    yield from exchange.pieces()


def read_chunks(exchange: Exchange) -> Generator[Chunk, None, None]:
    """stdout and stderr apart; of a terminal's stream everything is stdout."""
    found: list[Chunk] = []
    if not exchange.framed:
        for piece in exchange.pieces():
            yield Chunk("stdout", piece)
        return
    frames = Demultiplexer(
        lambda data: found.append(Chunk("stdout", bytes(data))), lambda data: found.append(Chunk("stderr", bytes(data)))
    )
    for piece in exchange.pieces():
        frames.feed(piece)
        yield from found
        found.clear()
    frames.finish()


def read_documents(exchange: Exchange) -> Generator[Any, None, None]:
    """JSON values one after another."""
    pending = b""
    for piece in exchange.pieces():
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


class Stream(Generic[T]):
    """An iterator over what comes; `with` closes it."""

    def __init__(
        self,
        opener: Callable[[], Exchange],
        reader: Callable[[Exchange], Generator[Any, None, None]],
        convert: Callable[[Any], T],
    ) -> None:
        self._opener = opener
        self._reader = reader
        self._convert = convert
        self._exchange: Exchange | None = None
        self._items: Generator[Any, None, None] | None = None

    def _opened(self) -> Generator[Any, None, None]:
        if self._items is None:
            self._exchange = self._opener()
            self._exchange.wire.plug.deadline = None
            self._items = self._reader(self._exchange)
        return self._items

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        items = self._opened()
        return self._convert(items.__next__())

    def set_deadline(self, deadline: float | None) -> None:
        """After this time of time.monotonic, waiting raises TimeoutError. For a stream that was entered."""
        if self._exchange is not None:
            self._exchange.wire.plug.deadline = deadline

    def close(self) -> None:
        """Hangs up."""
        if self._items is not None:
            self._items.close()
        if self._exchange is not None:
            self._exchange.abandon()


class Session:
    """A process' input and output: of `attach`, or of an exec. Iterating gives chunks until it closes its output."""

    def __init__(self, calls: Calls, exchange: Exchange, owner: str, command: str) -> None:
        self._calls = calls
        self._exchange = exchange
        self._owner = owner
        self._command = command
        self._chunks = read_chunks(exchange)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        return self._chunks.__next__()

    def set_deadline(self, deadline: float | None) -> None:
        """After this time of time.monotonic, waiting raises TimeoutError."""
        self._exchange.wire.plug.deadline = deadline

    def send(self, data: bytes | str) -> None:
        """Input for the process."""
        self._exchange.wire.plug.send(data.encode() if isinstance(data, str) else data)

    def end_input(self) -> None:
        """The end of the input; output can still be read."""
        self._exchange.wire.plug.end_input()

    def resize(self, rows: int, columns: int) -> None:
        """The terminal's size."""
        self._calls.do("POST", f"{self._owner}/resize", {"h": rows, "w": columns})

    def communicate(self, input: bytes | str | None = None) -> tuple[bytes, bytes]:
        """Sends input and its end while reading everything: (stdout, stderr)."""
        if input is not None:
            self._exchange.wire.plug.post(input.encode() if isinstance(input, str) else input)
            self.end_input()
        out: list[bytes] = []
        err: list[bytes] = []
        for chunk in self:
            (out if chunk.stream == "stdout" else err).append(chunk.data)
        return b"".join(out), b"".join(err)

    def exit_code(self) -> int:
        """The process' exit code; waits for a container's end."""
        if self._owner.startswith("/exec/"):
            return int((self._calls.json("GET", f"{self._owner}/json"))["ExitCode"] or 0)
        return int((self._calls.json("POST", f"{self._owner}/wait", timeout_s=FOREVER_S))["StatusCode"])

    def finish(self, input: bytes | str | None = None) -> Result:
        """`communicate`, and the exit code."""
        out, err = self.communicate(input)
        return Result(self.exit_code(), out, err, self._command)

    def close(self) -> None:
        """Hangs up; the process goes on."""
        self._chunks.close()
        self._exchange.abandon()
