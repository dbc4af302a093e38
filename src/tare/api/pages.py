"""Lists in pages, beside Docker's plain form: `?cursor=&limit=100` begins, `Tare-Next-Cursor` names the next. Pure.

A cursor is where the last page ended (an item's place in the order), not a count: what is made or removed meanwhile
moves nothing else, so that an item that is there all the time is seen exactly once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from tare.errors import InvalidArgument

if TYPE_CHECKING:
    from tare.api.call import Call

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
HEADER = "Tare-Next-Cursor"
T = TypeVar("T")
Place = tuple[int, str]
"""Where an item stands: a rank (smaller comes first), then its id or name."""


class Page:
    """One page of one list. Without the argument `cursor` it is the whole list, as Docker gives it."""

    def __init__(self, call: Call) -> None:
        """Raises InvalidArgument for a cursor that none of these lists gave, or a limit out of range."""
        self.wanted = "cursor" in call.query
        self.headers: dict[str, str] = {}
        self._limit, self._after = 0, None
        if self.wanted:
            limit = call.number("limit", DEFAULT_LIMIT) or 0
            if not 1 <= limit <= MAX_LIMIT:
                raise InvalidArgument(f"invalid limit {limit}: a page has 1 to {MAX_LIMIT} entries")
            self._limit = limit
            self._after = parse_cursor(call.text("cursor"))

    def cut(self, items: Iterable[T], place: Callable[[T], Place]) -> list[T]:
        """The page's items, in order; all of them, as they come, if no page is wanted."""
        if not self.wanted:
            return list(items)
        left = sorted((item for item in items if self._after is None or place(item) > self._after), key=place)
        if len(left) > self._limit:
            left = left[: self._limit]
            self.headers = {HEADER: format_cursor(place(left[-1]))}
        return left


def format_cursor(place: Place) -> str:
    """A place as clients carry it about, without knowing what it means."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def parse_cursor(text: str) -> Place | None:
    """None for "", the beginning. Raises InvalidArgument."""
    if not text:
        return None
    try:
        rank, name = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=tuple[int, str])
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidArgument("invalid cursor") from error
    return rank, name
