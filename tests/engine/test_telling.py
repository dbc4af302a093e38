"""Progress for a client that stalls: bounded, the newest of each thing kept, the end and errors never lost."""

from __future__ import annotations

import asyncio
import threading
from typing import NamedTuple

import pytest

from tare.engine.events import MAX_UNREAD, Events
from tare.engine.telling import UNREAD, Telling


class Progress(NamedTuple):
    """key "": a line that must be read."""

    key: str
    done: int


def make() -> Telling[Progress]:
    return Telling(lambda item: item.key or None)


async def read(telling: Telling[Progress]) -> list[Progress]:
    return [item async for item in telling.items()]


def in_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_a_reader_who_keeps_up_hears_everything() -> None:
    """Below the bound nothing is dropped, in order, from several threads."""

    async def run() -> list[Progress]:
        telling = make()

        def work() -> None:
            for number in range(UNREAD):
                telling.tell(Progress("layer", number))
            telling.end()

        in_thread(work)
        return await read(telling)

    assert asyncio.run(run()) == [Progress("layer", number) for number in range(UNREAD)]


def test_a_reader_who_stalls_costs_no_more_than_the_bound() -> None:
    """100,000 items of three layers: the newest of each are there, none goes back, and few are kept."""

    async def run() -> tuple[int, list[Progress]]:
        telling = make()

        def work() -> None:
            telling.tell(Progress("", 0))
            for number in range(100_000):
                telling.tell(Progress(f"layer{number % 3}", number))
            telling.end()

        in_thread(work).join()
        return len(telling), await read(telling)

    kept, items = asyncio.run(run())
    assert kept <= UNREAD
    assert items[0] == Progress("", 0)
    for layer in range(3):
        told = [item.done for item in items if item.key == f"layer{layer}"]
        assert told == sorted(told) and told[-1] == max(n for n in range(99_990, 100_000) if n % 3 == layer)


def test_what_must_be_read_waits_for_room() -> None:
    """Who tells it from a thread of its own is held until there is room: all of it comes, in order."""

    async def run() -> tuple[int, list[Progress]]:
        telling = make()
        full = threading.Event()

        def work() -> None:
            for number in range(3 * UNREAD):
                if number == UNREAD:
                    full.set()
                telling.tell_waiting(Progress("", number))
            telling.end()

        in_thread(work)
        await asyncio.to_thread(full.wait, 10)
        return len(telling), await read(telling)

    kept, items = asyncio.run(run())
    assert kept <= UNREAD and [item.done for item in items] == list(range(3 * UNREAD))


def test_an_error_comes_after_what_was_told() -> None:
    async def run() -> list[Progress]:
        telling = make()
        for number in range(2 * UNREAD):
            telling.tell(Progress("layer", number))
        telling.end(ValueError("broken"))
        got = []
        with pytest.raises(ValueError, match="broken"):
            async for item in telling.items():
                got.append(item)
        return got

    got = asyncio.run(run())
    assert len(got) == UNREAD and got[-1] == Progress("layer", 2 * UNREAD - 1)


def test_who_waits_for_a_reader_that_left_goes_on() -> None:
    async def run() -> bool:
        telling = make()

        def work() -> None:
            for number in range(2 * UNREAD):
                telling.tell_waiting(Progress("", number))

        thread = in_thread(work)
        items = telling.items()
        assert (await anext(items)).done == 0
        await items.aclose()
        await asyncio.to_thread(thread.join, 10)
        return thread.is_alive() or len(telling) > 0

    assert not asyncio.run(run())


def test_who_follows_events_and_stalls_hears_no_gap() -> None:
    """The stream ends after what was kept for it: who follows knows that something was missed."""

    async def run() -> tuple[list[str], int]:
        events = Events()
        stalled = events.follow(since_ns=None, until_ns=None, filters={})
        first = asyncio.ensure_future(anext(stalled))
        await asyncio.sleep(0)
        events.publish("image", "0", "x")
        got = [(await first).action]
        for number in range(1, 2 * MAX_UNREAD):
            events.publish("image", str(number), "x")
        assert events.followers == 0
        return got + [event.action async for event in stalled], events.followers

    got, followers = asyncio.run(run())
    assert got == [str(number) for number in range(MAX_UNREAD + 1)] and followers == 0
