"""Both faces of the library behind one: a test is written once, for the blocking face, and runs on both."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Self


class Awaited:
    """An object of the asyncio face that waits for its own answers, on a loop of its own."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.inner = inner
        self.loop = loop

    def _take(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self.loop.run_until_complete(value)  # type: ignore[arg-type]
        return Awaited(value, self.loop) if type(value).__module__.startswith("tare.sdk.aio") else value

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return self._take(found)
        return lambda *args, **options: self._take(found(*args, **options))

    def __enter__(self) -> Any:
        return self._take(self.inner.__aenter__())

    def __exit__(self, *details: object) -> None:
        self._take(self.inner.__aexit__(*details))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._take(self.inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
