"""What a sink is, and what its messages need to know of a container. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tare.engine.log_files import Entry
from tare.engine.log_options import entry_attributes
from tare.engine.log_tag import expand_tag
from tare.engine.options import LogOptions
from tare.engine.records import Container
from tare.errors import InvalidArgument
from tare.values.timestamps import parse_rfc3339

DEFAULT_TAG = "{{.ID}}"


class Sink(Protocol):
    """A log server as the shipper sees it."""

    async def send(self, entries: Sequence[Entry]) -> None:
        """Sends entries; when it returns, the server's socket has them (with acknowledgement: the server has).

        Raises OSError (also TimeoutError) if not all could be sent; the same entries may be sent again.
        """

    async def close(self) -> None:
        """Lets the connection go."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The container that entries come from."""

    container: Container
    options: dict[str, str]
    tag: str
    attributes: dict[str, str]


def source_of(container: Container) -> Source:
    """Raises InvalidArgument for a tag's field that there isn't."""
    options = (container.host.log_config or LogOptions()).config or {}
    return Source(
        container=container,
        options=options,
        tag=expand_tag(options.get("tag") or DEFAULT_TAG, container),
        attributes=entry_attributes(container),
    )


def instant_ns(entry: Entry) -> int:
    """When an entry was written; 0 if it doesn't say."""
    try:
        return parse_rfc3339(entry.time)
    except InvalidArgument:
        return 0


def severity(entry: Entry) -> int:
    """Syslog's severity: error for standard error, else informational (RFC 5424, table 2)."""
    return 3 if entry.stream == "stderr" else 6


def line_of(entry: Entry) -> bytes:
    """The text without the newline that ended it."""
    return entry.log.removesuffix("\n").encode("utf-8", "surrogatepass")


def is_partial(entry: Entry) -> bool:
    """Whether the line goes on in the next entry."""
    return not entry.log.endswith("\n")
