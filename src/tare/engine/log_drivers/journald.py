"""The driver journald: entries in systemd's journal by its native protocol (systemd's JOURNAL_NATIVE_PROTOCOL).

A datagram has a field a line, `NAME=value`; a value with newlines has its size before it: `NAME\\n<u64 LE>value\\n`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from tare.engine.log_driver_options import Address
from tare.engine.log_drivers.connection import Datagrams
from tare.engine.log_drivers.sink import Source, is_partial, line_of, severity
from tare.engine.log_files import Entry
from tare.values.ids import short_id

DEFAULT_SOCKET = "/run/systemd/journal/socket"


class JournaldSink:
    """The journal of this machine."""

    def __init__(self, source: Source, path: str = DEFAULT_SOCKET) -> None:
        container = source.container
        fields = {field_name(name): value for name, value in source.attributes.items()}
        fields |= {
            "CONTAINER_ID": short_id(container.id),
            "CONTAINER_ID_FULL": container.id,
            "CONTAINER_NAME": container.name,
            "CONTAINER_TAG": source.tag,
            "IMAGE_NAME": container.config.image,
            "SYSLOG_IDENTIFIER": source.tag,
        }
        self._fields = b"".join(_field(name, value.encode()) for name, value in fields.items() if name)
        self._connection = Datagrams(Address("unixgram", path=path))

    async def send(self, entries: Sequence[Entry]) -> None:
        """Raises OSError, TimeoutError."""
        await self._connection.send(self.format(entry) for entry in entries)

    async def close(self) -> None:
        """Lets the connection go."""
        await self._connection.close()

    def format(self, entry: Entry) -> bytes:
        """One datagram."""
        own = [_field("MESSAGE", line_of(entry)), _field("PRIORITY", b"%d" % severity(entry))]
        own.append(_field("SYSLOG_TIMESTAMP", entry.time.encode()))
        if is_partial(entry):
            own.append(_field("CONTAINER_PARTIAL_MESSAGE", b"true"))
        return b"".join(own) + self._fields


def field_name(text: str) -> str:
    """A label's or variable's name as the journal takes names: A-Z, 0-9 and `_`, which it must not begin with."""
    return re.sub(r"[^A-Z0-9_]", "_", text.upper()).lstrip("_")


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
