"""Work with registries in threads of its own, which tells as it goes: one that nobody listens to any more ends.

Must never use the threads that other verbs wait for: a registry may let us wait for minutes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Generic, TypeVar

import msgspec

from tare.engine.engine import Engine
from tare.engine.telling import Telling
from tare.registry.records import Cancelled
from tare.registry.transport import Transport

T = TypeVar("T")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What is being done. layer: of a layer, whose id it is. current, total: bytes, 0 where none are counted."""

    status: str
    id: str = ""
    layer: bool = False
    current: int = 0
    total: int = 0


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A tag that was pushed. size: of its manifest."""

    tag: str
    digest: str
    size: int


Told = Step | Sent
Say = Callable[[Told], None]


def _thing(told: Told) -> str | None:
    """The layer that is told of, if it is one."""
    return told.id if isinstance(told, Step) and told.layer else None


class Job(Generic[T]):
    """One verb's thread. `run` gets the job; what it says and returns comes out of `steps`, or of `result`."""

    def __init__(self, engine: Engine, name: str, run: Callable[[Job[T]], T]) -> None:
        self.engine = engine
        self.transport = Transport(engine.registries.settings)
        self.gone: Future[None] = Future()
        """Done when nobody wants the job any more."""
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._told: Telling[Told] = Telling(_thing)
        self._result: T
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    # -- in the thread ------------------------------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        return self.transport.cancelled

    def say(self, told: Told) -> None:
        """What is told of layers waits for nobody, since their threads may work for others, too; the rest does."""
        if _thing(told) is None:
            self._told.tell_waiting(told)
        else:
            self._told.tell(told)

    def publish(self, action: str, name: str, short_name: str) -> None:
        """An event of an image, as Docker has them of pulls and pushes: by name."""
        self._loop.call_soon_threadsafe(self.engine.events.publish, "image", action, name, {"name": short_name})

    def wait_all(self, futures: Sequence[Future[Any]]) -> None:
        """Waits until all are done; raises the first failure at once, Cancelled when nobody wants them."""
        left: set[Future[Any]] = set(futures)
        while left:
            done, _ = wait({*left, self.gone}, return_when=FIRST_COMPLETED)
            if self.gone in done:
                raise Cancelled("cancelled")
            for future in done:
                future.result()
            left -= done

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled("cancelled")

    def _work(self) -> None:
        try:
            self._result = self._run(self)
            self._told.end()
        except Exception as error:
            self._told.end(error)
        finally:
            self.transport.close()
            self.engine.registries.ended(self)

    # -- on the loop --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.engine.registries.began(self)
        self._thread.start()

    def cancel(self) -> None:
        """Calls the job off; returns at once."""
        self.transport.cancel()
        self._told.leave()
        if not self.gone.done():
            self.gone.set_result(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    async def steps(self) -> AsyncGenerator[Told, None]:
        """What the job says, until it ends or fails. Left early, it is called off."""
        self.start()
        try:
            async for item in self._told.items():
                yield item
        finally:
            self.cancel()

    async def result(self) -> T:
        """What the job returns. Raises what it raised."""
        async for _ in self.steps():
            pass
        return self._result
