"""The bytes of packed files, out of chunks and the plain files that they go on from.

Must never take a byte from a plain file that may be packed meanwhile: a lease holds it while it is read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from tare import errors
from tare.storage.chunks.maps import ZEROS, Entry
from tare.storage.chunks.mark import NoLongerPacked
from tare.storage.chunks.rows import PackedFile, PackedFiles
from tare.storage.chunks.table import Chunk, Chunks
from tare.storage.leases import Lease
from tare.storage.tree_reader import open_beneath, open_directory

_PIECE_BYTES = 256 << 10
_ZEROS = bytes(_PIECE_BYTES)


class Shelf(Protocol):
    """What packing needs of the layers."""

    def path(self, diff_id: str) -> Path: ...

    def lease(self, diff_ids: Sequence[str] = ()) -> AbstractContextManager[Lease]: ...


class Reading:
    """Reads packed files; knows whether anybody is at it."""

    def __init__(self, layers: Shelf, rows: PackedFiles, chunks: Chunks) -> None:
        self._layers = layers
        self._rows = rows
        self._chunks = chunks
        self._lock = threading.Lock()
        self._readers = 0

    @property
    def idle(self) -> bool:
        """Whether no reader may still need the bytes of chunks that were forgotten."""
        return self._readers == 0

    def read(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Pieces of a file's content, by its mark.

        Raises NoLongerPacked before the first piece, Internal where bytes are wrong.
        """
        with ExitStack() as exits:
            exits.enter_context(_Counted(self))
            file = self._rows.marked(name)
            if file is None:
                raise NoLongerPacked(name)
            entries, base_fd = self._pinned(file, exits)
            end = file.size if length is None else min(file.size, offset + length)
            entries = list(_within(entries, offset, end))
            chunks = self._chunks.load(entry.source for entry in entries if entry.source > 0)
            position = offset
            for entry in entries:
                yield from self._entry(file, entry, position, base_fd, chunks)
                position += entry.length
            if position != max(offset, end):
                raise errors.Internal(f"the map of {_named(file)} ends at {position}, not {end}")

    def _pinned(self, file: PackedFile, exits: ExitStack) -> tuple[list[Entry], int]:
        """The entries, and the open plain file at their end, if there is one, which stays plain while `exits` is."""
        while True:
            entries, base = self._rows.resolved(file)
            if base is None:
                return entries, -1
            with ExitStack() as held:
                held.enter_context(self._layers.lease((base,)))
                if self._rows.find(base, file.path) is not None:
                    continue  # packed between the look and the lease
                tree_fd = open_directory(self._layers.path(base))
                try:
                    base_fd = open_beneath(tree_fd, file.path, os.O_RDONLY | os.O_NONBLOCK)
                finally:
                    os.close(tree_fd)
                held.callback(os.close, base_fd)
                exits.push(held.pop_all())
                return entries, base_fd

    def _entry(
        self, file: PackedFile, entry: Entry, position: int, base_fd: int, chunks: dict[int, Chunk]
    ) -> Iterator[bytes]:
        left = entry.length
        if entry.source > 0:
            try:
                data = self._chunks.read(chunks[entry.source])
            except errors.Internal as error:
                raise errors.Internal(f"{_named(file)}: {error}") from error
            yield data if left == len(data) else data[entry.start : entry.start + left]
            return
        while left:
            if entry.source == ZEROS:
                piece = _ZEROS[:left]
            else:
                piece = os.pread(base_fd, min(left, _PIECE_BYTES), position)
                if not piece:
                    raise errors.Internal(f"the base of {_named(file)} is shorter than {position + left} bytes")
            yield piece
            left -= len(piece)
            position += len(piece)


class _Counted:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __enter__(self) -> None:
        with self._reading._lock:
            self._reading._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._reading._lock:
            self._reading._readers -= 1


def _within(entries: list[Entry], offset: int, end: int) -> Iterator[Entry]:
    """The entries, cut to what lies between two offsets."""
    position = 0
    for entry in entries:
        start, stop = max(position, offset), min(position + entry.length, end)
        if start < stop:
            yield Entry(stop - start, entry.source, entry.start + start - position if entry.source > 0 else 0)
        position += entry.length


def _named(file: PackedFile) -> str:
    return f"packed file {os.fsdecode(file.path)!r} of layer {file.diff_id}"
