"""One call of an API operation, as its function sees it: the engine, the version, path and query, the body as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec

from tare.api import wire
from tare.api.json_text import parse_json
from tare.api.messages import Request, Response
from tare.errors import InvalidArgument
from tare.values.filters import Filters

if TYPE_CHECKING:
    from tare.engine.engine import Engine

MAX_JSON_BYTES = 8 << 20
UNREAD = object()
"""In place of a body that nobody has read yet."""
JSON_TYPE = {"Content-Type": "application/json"}
_FALSE = ("", "0", "no", "false", "none")
T = TypeVar("T", bound=msgspec.Struct)


class Call(NamedTuple):
    """A request that found its operation. path: the variables of the path; query: the last value of each argument.

    document: the body, where a check has parsed it before the operation.
    """

    engine: Engine
    request: Request
    version: tuple[int, int]
    path: Mapping[str, str]
    query: Mapping[str, str]
    repeated: Mapping[str, list[str]]
    document: Any = UNREAD

    def text(self, name: str, default: str = "") -> str:
        """A query argument."""
        return self.query.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """A query argument as Docker reads truth: everything but "", 0, no, false and none is true."""
        if name not in self.query:
            return default
        return self.query[name].strip().lower() not in _FALSE

    def number(self, name: str, default: int | None = None) -> int | None:
        """A query argument as a number. Raises InvalidArgument with Go's text."""
        text = self.query.get(name, "")
        if not text:
            return default
        digits = text[1:] if text[0] in "+-" else text
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidArgument(f'strconv.Atoi: parsing "{text[:64]}": invalid syntax')
        if len(digits) > 18:
            raise InvalidArgument(f'strconv.Atoi: parsing "{text[:64]}": value out of range')
        return int(text)

    def lines(self, name: str) -> tuple[str, ...]:
        """All values of a repeated argument; clients also send several in one, a line each."""
        values = self.repeated.get(name, ())
        return tuple(line.strip() for value in values for line in value.splitlines() if line.strip())

    def filters(self) -> Filters:
        """The `filters` argument: a map of lists, or the older map of maps. Raises InvalidArgument."""
        text = self.query.get("filters", "")
        if not text:
            return {}
        return parse_filters(text)

    async def json(self) -> Any:
        """The body as JSON; None where there is none. Raises InvalidArgument, TooLarge."""
        if self.document is not UNREAD:
            return self.document
        data = await self.request.body.read_whole(MAX_JSON_BYTES)
        kind = self.request.headers.get("content-type", "")
        # Required, as in Docker: a page in a browser can't send this type to a foreign server without being asked.
        if data and kind.partition(";")[0].strip().lower() != "application/json":
            raise InvalidArgument(f"unsupported Content-Type header ({kind[:100]}): must be 'application/json'")
        return parse_json(data) if data else None

    async def record(self, kind: type[T]) -> T:
        """The body as a record, all defaults where it is empty. Raises InvalidArgument."""
        return wire.decode(kind, await self.json())


def parse_query(text: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(first value, all values) of each argument."""
    if not text:
        return {}, {}
    first: dict[str, str] = {}
    every: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise InvalidArgument(f"invalid query: {error}") from error
    for name, value in pairs:
        first.setdefault(name, value)
        every.setdefault(name, []).append(value)
    return first, every


def parse_filters(text: str) -> Filters:
    """A `filters` argument. Raises InvalidArgument."""
    loaded = parse_json(text.encode())
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise InvalidArgument("invalid filter")
    made: dict[str, tuple[str, ...]] = {}
    for name, values in loaded.items():
        if isinstance(values, dict):
            values = [key for key, wanted in values.items() if wanted is not False]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InvalidArgument("invalid filter")
        made[name] = tuple(values)
    return made


def json_response(value: object, status: int = 200, headers: Mapping[str, str] = {}) -> Response:
    """An answer in JSON."""
    return Response(status, {**JSON_TYPE, **headers}, msgspec.json.encode(value) + b"\n")


def empty_response(status: int = 204) -> Response:
    """An answer without a body."""
    return Response(status)


async def json_lines(values: AsyncIterator[object]) -> AsyncIterator[bytes]:
    """A stream of JSON documents, one a line."""
    try:
        async for value in values:
            yield msgspec.json.encode(value) + b"\n"
    finally:
        aclose = getattr(values, "aclose", None)
        if aclose is not None:
            await aclose()
