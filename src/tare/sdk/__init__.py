"""The Python library: a typed client of an engine, blocking and for asyncio. `docs/python.md` shows how it is used.

Must never import the engine, nor be imported by `import tare` before it is asked for.
"""

from tare.sdk.aio.client import AsyncClient
from tare.sdk.aio.containers import AsyncContainer
from tare.sdk.aio.streams import AsyncSession, AsyncStream
from tare.sdk.blocking.client import Client
from tare.sdk.blocking.connect import connect
from tare.sdk.blocking.containers import Container
from tare.sdk.blocking.streams import Session, Stream

__all__ = [
    "AsyncClient",
    "AsyncContainer",
    "AsyncSession",
    "AsyncStream",
    "Client",
    "Container",
    "Session",
    "Stream",
    "connect",
]
