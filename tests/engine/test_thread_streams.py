"""Streams between the event loop and a thread: whole and in order, bounded, ended by whoever leaves."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator

import pytest

from tare.engine.thread_stream import CHUNK_BYTES, QUEUED_CHUNKS, BodyReader, Write, written_in_thread

DEADLINE_S = 80


def test_what_a_thread_writes_comes_whole_and_in_order() -> None:
    source = random.Random(5)
    pieces = [source.randbytes(source.choice((1, 512, 70_000, CHUNK_BYTES, 3 * CHUNK_BYTES))) for _ in range(60)]

    def work(write: Write) -> None:
        for one in pieces:
            write(one)

    async def run() -> bytes:
        return b"".join([chunk async for chunk in written_in_thread(work)])

    assert asyncio.run(asyncio.wait_for(run(), DEADLINE_S)) == b"".join(pieces)


def test_a_slow_reader_holds_the_thread_back() -> None:
    written = 0
    full = threading.Event()

    def work(write: Write) -> None:
        nonlocal written
        for number in range(3 * QUEUED_CHUNKS):
            if number == QUEUED_CHUNKS + 1:
                full.set()
            write(bytes(CHUNK_BYTES))
            written += 1

    async def run() -> int:
        stream = written_in_thread(work)
        await anext(stream)
        assert await asyncio.to_thread(full.wait, DEADLINE_S)
        count = written
        total = CHUNK_BYTES + sum([len(chunk) async for chunk in stream])
        assert total == 3 * QUEUED_CHUNKS * CHUNK_BYTES
        return count

    assert asyncio.run(asyncio.wait_for(run(), DEADLINE_S)) <= QUEUED_CHUNKS + 2


def test_a_reader_that_leaves_ends_the_thread() -> None:
    """At its next write, also one that waits for room; the generator ends after it."""
    ended = threading.Event()

    def work(write: Write) -> None:
        try:
            while True:
                write(bytes(CHUNK_BYTES))
        finally:
            ended.set()

    async def run() -> None:
        stream = written_in_thread(work)
        await anext(stream)
        await stream.aclose()
        assert ended.is_set()

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_what_fails_in_the_thread_fails_the_reader() -> None:
    def work(write: Write) -> None:
        write(b"begin")
        raise ValueError("broken")

    async def run() -> list[bytes]:
        return [chunk async for chunk in written_in_thread(work)]

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_a_thread_reads_a_body_in_any_sizes() -> None:
    source = random.Random(6)
    chunks = [source.randbytes(source.choice((1, 100, 300_000))) for _ in range(40)]

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def run() -> bytes:
        reader = BodyReader(body(), asyncio.get_running_loop())

        def read() -> bytes:
            found = []
            while data := reader.read(source.choice((1, 10, 65536, -1))):
                found.append(data)
            return b"".join(found) + reader.read(5)

        return await asyncio.to_thread(read)

    assert asyncio.run(asyncio.wait_for(run(), DEADLINE_S)) == b"".join(chunks)
