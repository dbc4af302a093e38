"""What a packed file's bytes are: runs of its base, of zeros, of chunks. Pure.

A map is a list of entries that follow each other from offset 0 on. A run of the base stands at the same offset there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from tare import errors

BASE = 0
ZEROS = -1
_ENTRY = struct.Struct("<QqQ")


class Entry(NamedTuple):
    """`length` bytes out of `source`: BASE, ZEROS, or a chunk's id, from its byte `start` on."""

    length: int
    source: int
    start: int = 0


def encode(entries: Iterable[Entry]) -> bytes:
    """As the database keeps it."""
    import zstandard  # here, since an idle engine shouldn't carry it

    return zstandard.ZstdCompressor(level=3).compress(b"".join(_ENTRY.pack(*entry) for entry in entries))


def decode(data: bytes) -> list[Entry]:
    """Raises Internal for a map that isn't one."""
    import zstandard

    try:
        plain = zstandard.ZstdDecompressor().decompress(data)
        return [Entry(*fields) for fields in _ENTRY.iter_unpack(plain)]
    except (zstandard.ZstdError, struct.error) as error:
        raise errors.Internal(f"the map of a packed file is damaged: {error}") from error


def joined(entries: Iterable[Entry]) -> list[Entry]:
    """The same with neighbours of one kind as one entry."""
    made: list[Entry] = []
    for entry in entries:
        if made and entry.source == made[-1].source and entry.source in (BASE, ZEROS):
            made[-1] = Entry(made[-1].length + entry.length, entry.source)
        elif entry.length:
            made.append(entry)
    return made


def compose(upper: list[Entry], lower: list[Entry]) -> list[Entry]:
    """`upper` over the base of `lower`, where `lower` is what upper's base is."""
    made: list[Entry] = []
    offset = below_end = 0
    below = iter(lower)
    current = Entry(0, BASE)
    for entry in upper:
        end = offset + entry.length
        if entry.source != BASE:
            made.append(entry)
            offset = end
            continue
        while offset < end:
            while below_end <= offset:
                current = next(below, Entry(0, BASE))
                if not current.length:
                    raise errors.Internal("the map of a packed file reaches beyond its base")
                below_end += current.length
            length = min(end, below_end) - offset
            start = 0
            if current.source > 0:
                start = current.start + offset - (below_end - current.length)
            made.append(Entry(length, current.source, start))
            offset += length
    return joined(made)


def uses(entries: Iterable[Entry]) -> list[int]:
    """The chunks that a map names, as often as it names them."""
    return [entry.source for entry in entries if entry.source > 0]
