"""Fixtures of the library's tests: each face on each engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from faces import Awaited

import tare
from support.engine import Engine


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One loop for all tests of a module."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, engine: Engine, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """A client of the engine, of either face; the asyncio one looks as if it were blocking."""
    address = f"unix://{engine.socket}"
    made: Any = tare.Client(address) if request.param == "blocking" else Awaited(tare.AsyncClient(address), loop)
    with made:
        yield made


@pytest.fixture
def box(engine: Engine) -> str:
    """The image."""
    return engine.image
