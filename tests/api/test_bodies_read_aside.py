"""Bodies that a task reads apart from the handler that answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from httpserver import running

from tare.api.body import BodyTruncated
from tare.api.messages import Request, Response


def test_a_reader_apart_does_not_outlive_the_connection(tmp_path: Path) -> None:
    """An answer that ends before the body has come tells who still reads the body that it won't be whole."""
    readers: set[asyncio.Task[None]] = set()
    told = threading.Event()

    async def read(request: Request) -> None:
        try:
            while await request.body.read():
                pass
        except BodyTruncated:
            told.set()

    async def answer(request: Request) -> Response:
        readers.add(asyncio.create_task(read(request)))

        async def stream() -> AsyncIterator[bytes]:
            yield b"enough"

        return Response(200, {}, stream(), reads_body=True)

    with running(answer, tmp_path) as server, server.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        assert told.wait(60)
