"""One version of a file as what differs from another, block by block; what is equal costs nothing.

Must never hold more than a window of either in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from tare.storage.chunks.maps import BASE, ZEROS, Entry, joined
from tare.storage.chunks.table import CHUNK_BYTES

WINDOW_BYTES = 1 << 20
BLOCK_BYTES = 4 << 10
_ZEROS = bytes(WINDOW_BYTES)


class Stopped(Exception):
    """Somebody wants the work to end."""


def difference(
    content: Iterator[bytes], base: Iterator[bytes], add: Callable[[bytes], int], go_on: Callable[[], bool]
) -> tuple[list[Entry], bytes]:
    """The map of `content` over `base`, and content's sha256. add: stores a chunk and gives its id.

    go_on is asked once a window; raises Stopped if it says no.
    """
    digest = hashlib.sha256()
    entries: list[Entry] = []
    below = windows(base)
    for window in windows(content):
        if not go_on():
            raise Stopped
        digest.update(window)
        entries += _window(window, next(below, b""), add)
    return joined(entries), digest.digest()


def _window(window: bytes, base: bytes, add: Callable[[bytes], int]) -> Iterator[Entry]:
    if window == base or (len(base) > len(window) and base.startswith(window)):
        yield Entry(len(window), BASE)
        return
    start, kind = 0, None
    for offset in range(0, len(window), BLOCK_BYTES):
        block = window[offset : offset + BLOCK_BYTES]
        found = _kind(block, base[offset : offset + len(block)])
        if found != kind or (kind is None and offset - start >= CHUNK_BYTES):
            yield from _run(window[start:offset], kind, add)
            start, kind = offset, found
    yield from _run(window[start:], kind, add)


def _kind(block: bytes, base: bytes) -> int | None:
    """BASE, ZEROS, or None for bytes of its own."""
    if block == base:
        return BASE
    return ZEROS if block == _ZEROS[: len(block)] else None


def _run(data: bytes, kind: int | None, add: Callable[[bytes], int]) -> Iterator[Entry]:
    if data:
        yield Entry(len(data), add(data) if kind is None else kind)


def windows(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of WINDOW_BYTES, the last one shorter."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        while len(pending) >= WINDOW_BYTES:
            yield bytes(memoryview(pending)[:WINDOW_BYTES])
            del pending[:WINDOW_BYTES]
    if pending:
        yield bytes(pending)
