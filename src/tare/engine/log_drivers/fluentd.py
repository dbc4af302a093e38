"""The driver fluentd: the forward protocol 1.1 in message mode, `[tag, time, record, option]` in MessagePack."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import struct
import time
from collections.abc import Sequence

import msgspec

from tare.engine.log_driver_options import fluentd_address, parse_flag
from tare.engine.log_drivers.connection import Stream
from tare.engine.log_drivers.sink import Source, instant_ns, is_partial
from tare.engine.log_files import Entry

ACK_S = 30.0
MAX_ACK_BYTES = 1024
_EVENT_TIME = 0
"""The extension type of the protocol's EventTime: seconds and nanoseconds, 32 bits each."""
_encode = msgspec.msgpack.Encoder().encode


class FluentdSink:
    """A fluentd or fluent-bit server."""

    def __init__(self, source: Source) -> None:
        options, container = source.options, source.container
        address = fluentd_address(options.get("fluentd-address", ""))
        context = ssl.create_default_context() if address.scheme == "tcp+tls" else None
        self._connection = Stream(address, context)
        self._acknowledged = parse_flag(options.get("fluentd-request-ack", "false"))
        self._precise = parse_flag(options.get("fluentd-sub-second-precision", "false"))
        self._tag = source.tag
        self._fields = {
            **source.attributes,
            "container_id": container.id,
            "container_name": f"/{container.name}",
        }

    async def send(self, entries: Sequence[Entry]) -> None:
        """Raises OSError, TimeoutError. With acknowledgement it returns once the server has said that it has them."""
        if not self._acknowledged:
            await self._connection.send(self.format(entry) for entry in entries)
            return
        for entry in entries:
            chunk = base64.b64encode(os.urandom(16)).decode()
            await self._connection.send([self.format(entry, chunk)])
            await self._wait_acknowledged(chunk)

    async def close(self) -> None:
        """Lets the connection go."""
        await self._connection.close()

    def format(self, entry: Entry, chunk: str = "") -> bytes:
        """One message."""
        instant = instant_ns(entry) or time.time_ns()
        record = {**self._fields, "source": entry.stream, "log": entry.log.removesuffix("\n")}
        if is_partial(entry):
            record["partial_message"] = "true"
        seconds, fraction = divmod(instant, 10**9)
        moment = msgspec.msgpack.Ext(_EVENT_TIME, struct.pack(">II", seconds, fraction)) if self._precise else seconds
        option = {"chunk": chunk} if chunk else {}
        return _encode([self._tag, moment, record, option])

    async def _wait_acknowledged(self, chunk: str) -> None:
        reader = self._connection.reader
        if reader is None:
            raise ConnectionResetError("the server hung up before it acknowledged")
        try:
            async with asyncio.timeout(ACK_S):
                answer = await self._read_answer(reader)
        except OSError:
            await self._connection.close()
            raise
        if answer.get("ack") != chunk:
            await self._connection.close()
            raise ConnectionAbortedError("the server acknowledged something else")

    async def _read_answer(self, reader: asyncio.StreamReader) -> dict[str, object]:
        received = b""
        while len(received) < MAX_ACK_BYTES:
            data = await reader.read(MAX_ACK_BYTES)
            if not data:
                raise ConnectionResetError("the server hung up before it acknowledged")
            received += data
            try:
                return msgspec.msgpack.decode(received, type=dict[str, object])
            except msgspec.ValidationError as error:
                raise ConnectionAbortedError("the server's answer is no acknowledgement") from error
            except msgspec.DecodeError:
                continue  # not whole yet
        raise ConnectionAbortedError("the server's answer is too long")
