"""Files into and out of containers, running or not."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from tare.client.engine import quote
from tare.sdk import archives, documents
from tare.sdk.aio.calls import AsyncCalls
from tare.sdk.records import PathInfo

PIECE_BYTES = 256 << 10


class AsyncFiles:
    """`container.files`. Paths in the container are absolute; links in them are the container's."""

    def __init__(self, calls: AsyncCalls, container: str) -> None:
        self._calls = calls
        self._path = f"/containers/{quote(container)}/archive"

    async def info(self, path: str) -> PathInfo:
        """What is at a path. NotFound if there is nothing."""
        exchange = await self._calls.open("HEAD", self._path, {"path": path})
        await exchange.read()
        return documents.path_info(exchange.headers.get("x-docker-container-path-stat", ""))

    async def _fetch(self, path: str) -> IO[bytes]:
        exchange = await self._calls.open("GET", self._path, {"path": path})
        spool = archives.new_spool()
        try:
            async for piece in exchange.pieces():
                spool.write(piece)
        except BaseException:
            spool.close()
            raise
        return spool

    async def read(self, path: str) -> bytes:
        """A file's contents."""
        with await self._fetch(path) as spool:
            return archives.read_only_file(spool)

    async def get(self, path: str, directory: str | Path) -> Path:
        """Copies a file or directory into a directory of this machine; returns where it is now."""
        with await self._fetch(path) as spool:
            return archives.unpack(spool, Path(directory))[0]

    async def write(self, path: str, data: bytes | str, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Makes or replaces a file; its directory must be there."""
        folder, name = archives.split_target(path)
        content = data.encode() if isinstance(data, str) else data
        await self._calls.do("PUT", self._path, {"path": folder}, archives.pack_file(name, content, mode, owner))

    async def put(self, source: str | Path, path: str) -> None:
        """Copies a file or directory of this machine to a path in the container; its directory must be there."""
        folder, name = archives.split_target(path)
        with archives.pack_path(Path(source), name) as spool:
            await self._calls.do("PUT", self._path, {"path": folder}, iter(lambda: spool.read(PIECE_BYTES), b""))
