"""The driver gelf: Graylog's extended log format 1.1, over UDP (compressed, in chunks) and TCP (each ends in a NUL)."""

from __future__ import annotations

import os
import socket
import time
import zlib
from collections.abc import Iterator, Sequence

import msgspec

from tare.engine.log_driver_options import gelf_address
from tare.engine.log_drivers.connection import Connection, Datagrams, Stream
from tare.engine.log_drivers.sink import Source, instant_ns, line_of, severity
from tare.engine.log_files import Entry
from tare.values.timestamps import format_rfc3339

CHUNK_BYTES = 1420
"""What fits a datagram on any route without being cut by it."""
MAX_CHUNKS = 128
_MAGIC = b"\x1e\x0f"
_WBITS = {"gzip": 31, "zlib": 15}


class GelfSink:
    """A GELF server."""

    def __init__(self, source: Source) -> None:
        container, options = source.container, source.options
        address = gelf_address(options.get("gelf-address", ""))
        self._is_tcp = address.scheme == "tcp"
        self._compression = options.get("gelf-compression-type", "gzip")
        self._level = int(options.get("gelf-compression-level", "1"))
        self._connection: Connection = Stream(address) if self._is_tcp else Datagrams(address)
        extra = {f"_{name}": value for name, value in source.attributes.items()}
        extra.pop("_id", None)  # the specification keeps it for the server
        self._fields = {
            "version": "1.1",
            "host": socket.gethostname(),
            **extra,
            "_container_id": container.id,
            "_container_name": container.name,
            "_image_id": container.image_id,
            "_image_name": container.config.image,
            "_command": " ".join((container.path, *container.args)),
            "_tag": source.tag,
            "_created": format_rfc3339(container.created_ns),
        }

    async def send(self, entries: Sequence[Entry]) -> None:
        """Raises OSError, TimeoutError."""
        if self._is_tcp:
            await self._connection.send(self.format(entry) + b"\0" for entry in entries)
        else:
            await self._connection.send(part for entry in entries for part in self._datagrams(self.format(entry)))

    async def close(self) -> None:
        """Lets the connection go."""
        await self._connection.close()

    def format(self, entry: Entry) -> bytes:
        """One message."""
        milliseconds = (instant_ns(entry) or time.time_ns()) // 10**6
        text = line_of(entry).decode("utf-8", "replace")
        message = {**self._fields, "short_message": text, "timestamp": milliseconds / 1000, "level": severity(entry)}
        return msgspec.json.encode(message)

    def _datagrams(self, message: bytes) -> Iterator[bytes]:
        if self._compression != "none":
            packer = zlib.compressobj(self._level, wbits=_WBITS[self._compression])
            message = packer.compress(message) + packer.flush()
        if len(message) <= CHUNK_BYTES:
            yield message
            return
        size = CHUNK_BYTES - 12
        count = -(-len(message) // size)
        if count > MAX_CHUNKS:  # 180 KB, when an entry has 16: only for labels of great length
            count, message = MAX_CHUNKS, message[: MAX_CHUNKS * size]
        message_id = os.urandom(8)
        for number in range(count):
            part = message[number * size : (number + 1) * size]
            yield _MAGIC + message_id + bytes((number, count)) + part
