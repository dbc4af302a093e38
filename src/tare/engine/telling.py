"""What a thread tells while it works, for one reader on the loop, who may be slow or stall: it never piles up.

Must never lose the last of what is told of a thing, nor the end, nor an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

UNREAD = 256
"""So many are kept in any case; beyond, the newer of one thing takes the older's place."""


class Telling(Generic[T]):
    """Made on the loop, told from any thread.

    of: which thing an item tells of, so that a newer one makes it worthless; None for what must be read.
    """

    def __init__(self, of: Callable[[T], Hashable | None]) -> None:
        self._of = of
        self._loop = asyncio.get_running_loop()
        self._unread: deque[tuple[Hashable | None, T]] = deque()
        self._room = threading.Condition()
        self._woken = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self._left = False

    def __len__(self) -> int:
        return len(self._unread)

    def tell(self, item: T) -> None:
        """Returns at once. Beyond UNREAD, what is told of the same thing and hasn't been read yet is dropped."""
        with self._room:
            self._append(item)

    def tell_waiting(self, item: T) -> None:
        """The same, but beyond UNREAD it returns only when the reader has made room, or left. Never on the loop."""
        with self._room:
            self._room.wait_for(lambda: self._left or len(self._unread) < UNREAD)
            self._append(item)

    def _append(self, item: T) -> None:
        if self._left:
            return
        thing = self._of(item)
        if thing is not None and len(self._unread) >= UNREAD:
            older = next((one for one in self._unread if one[0] == thing), None)
            if older is not None:
                self._unread.remove(older)
        self._unread.append((thing, item))
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Nothing follows: the reader comes to an end after what is there, or to the error."""
        with self._room:
            self._ended, self._error = True, error
            self._wake()

    def leave(self) -> None:
        """Nobody reads any more."""
        with self._room:
            self._left = True
            self._unread.clear()
            self._room.notify_all()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody with it
            self._loop.call_soon_threadsafe(self._woken.set)

    async def items(self) -> AsyncGenerator[T, None]:
        """All that is told, until the end. Raises the error."""
        try:
            while True:
                with self._room:
                    found = self._unread.popleft() if self._unread else None
                    ended = self._ended
                    self._woken.clear()
                    self._room.notify()
                if found is not None:
                    yield found[1]
                elif not ended:
                    await self._woken.wait()
                elif self._error is not None:
                    raise self._error
                else:
                    return
        finally:
            self.leave()
