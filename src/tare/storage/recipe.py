"""A layer's recipe: the tar stream it came from without the payloads in its tree, to write it again bit for bit.

Must never hold a payload that the tree has. Its form, zstd-compressed (all numbers little-endian):

    b"tare-recipe 1\\n"
    b"R" u32 length, bytes                                    bytes of the stream as they were: headers, padding
    b"P" u64 size, u32 length, path                           the whole content of the tree's file `path`
    b"S" u32 length, path, u32 count, count × (u64 offset, u64 length)
                                                              the extents of a sparse file, one after the other
    b"M" u64 ordinal, u32 number, u32 length, path            before file `ordinal` was made, what stood at `path`
                                                              moved to shadow/<number>: P and S count as files
    b"E" u64 total                                            the end, and how long the stream was
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from tare import errors
from tare.storage.chunks import mark
from tare.storage.tree_reader import open_beneath

MAGIC = b"tare-recipe 1\n"
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_PAYLOAD = struct.Struct("<cQI")
_MOVE = struct.Struct("<cQII")
_EXTENT = struct.Struct("<QQ")
_FLUSH_BYTES = 64 << 10
_READ_BYTES = 256 << 10


class RecipeWriter:
    """Collects raw bytes and payload references in the stream's order and writes them compressed to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        import zstandard  # here, since an idle engine shouldn't carry it

        self._file = open(descriptor, "wb", closefd=True)  # noqa: SIM115 (closed by `finish` or `close`)
        self._compressor = zstandard.ZstdCompressor(level=1).compressobj()
        self._pending: list[bytes] = [MAGIC]
        self._pending_bytes = 0
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self.total = 0

    def raw(self, data: bytes) -> None:
        self._raw.append(data)
        self._raw_bytes += len(data)
        self.total += len(data)
        if self._raw_bytes >= _FLUSH_BYTES:
            self._close_raw()

    def payload(self, path: bytes, size: int) -> None:
        self._close_raw()
        self._add(_PAYLOAD.pack(b"P", size, len(path)) + path)
        self.total += size

    def sparse(self, path: bytes, extents: list[tuple[int, int]]) -> None:
        self._close_raw()
        packed = b"".join(_EXTENT.pack(offset, length) for offset, length in extents)
        self._add(b"S" + _U32.pack(len(path)) + path + _U32.pack(len(extents)) + packed)
        self.total += sum(length for _, length in extents)

    def finish(self, moves: list[tuple[int, bytes, int]]) -> None:
        self._close_raw()
        for ordinal, path, number in moves:
            self._add(_MOVE.pack(b"M", ordinal, number, len(path)) + path)
        self._add(b"E" + _U64.pack(self.total))
        self._write_pending()
        self._file.write(self._compressor.flush())
        self._file.close()

    def close(self) -> None:
        self._file.close()

    def _close_raw(self) -> None:
        if self._raw:
            data = b"".join(self._raw)
            self._raw.clear()
            self._raw_bytes = 0
            self._add(b"R" + _U32.pack(len(data)) + data)

    def _add(self, record: bytes) -> None:
        self._pending.append(record)
        self._pending_bytes += len(record)
        if self._pending_bytes >= _FLUSH_BYTES:
            self._write_pending()

    def _write_pending(self) -> None:
        self._file.write(self._compressor.compress(b"".join(self._pending)))
        self._pending.clear()
        self._pending_bytes = 0


class _Records:
    """The records of a recipe, one by one."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._reader = zstandard.ZstdDecompressor().stream_reader(file, read_size=_READ_BYTES)
        if self._take(len(MAGIC)) != MAGIC:
            raise errors.Internal("a layer's recipe has an unknown form")

    def _take(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = self._reader.read(size)
            except self._error as error:
                raise errors.Internal(f"a layer's recipe is damaged: {error}") from error
            if not part:
                raise errors.Internal("a layer's recipe is cut short")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _number(self, form: struct.Struct) -> int:
        return int(form.unpack(self._take(form.size))[0])

    def __iter__(self) -> Iterator[tuple[bytes, int, bytes, list[tuple[int, int]]]]:
        """(kind, number, bytes, extents): R has bytes; P size and path; S path and extents; M packs its numbers."""
        while True:
            kind = self._take(1)
            if kind == b"R":
                yield kind, 0, self._take(self._number(_U32)), []
            elif kind == b"P":
                size = self._number(_U64)
                yield kind, size, self._take(self._number(_U32)), []
            elif kind == b"S":
                path = self._take(self._number(_U32))
                count = self._number(_U32)
                extents = list(_EXTENT.iter_unpack(self._take(count * _EXTENT.size)))
                yield kind, sum(length for _, length in extents), path, extents
            elif kind == b"M":
                ordinal, number = self._number(_U64), self._number(_U32)
                yield kind, ordinal, self._take(self._number(_U32)), [(number, 0)]
            elif kind == b"E":
                yield kind, self._number(_U64), b"", []
                return
            else:
                raise errors.Internal("a layer's recipe holds an unknown record")


class Files(Protocol):
    """Where a layer's payloads are."""

    def chunks(self, path: bytes, extents: Sequence[tuple[int, int]], *, shadow: bool) -> Iterator[bytes]:
        """The content of a file at (offset, length) …, one after the other. shadow: path is one of displaced files.

        Raises Internal if the file is shorter, OSError as os.open does if it isn't there.
        """
        ...


class TreeFiles:
    """Payloads that lie as files below the layer's own directories, packed or not."""

    def __init__(self, tree_fd: int, shadow_fd: int | None) -> None:
        self._tree_fd = tree_fd
        self._shadow_fd = shadow_fd

    def chunks(self, path: bytes, extents: Sequence[tuple[int, int]], *, shadow: bool) -> Iterator[bytes]:
        at_fd = self._shadow_fd if shadow else self._tree_fd
        if at_fd is None:
            raise errors.Internal(f"a layer's displaced file {path!r} is not there")
        descriptor = open_beneath(at_fd, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            small = len(extents) == 1 and extents[0][1] <= mark.MIN_BYTES
            for offset, length in extents:
                pieces = None if small else mark.pieces(descriptor, offset, length)
                if pieces is not None:
                    try:
                        yield from pieces
                        continue
                    except mark.NoLongerPacked:
                        pass
                end = offset + length
                while offset < end:
                    chunk = os.pread(descriptor, min(end - offset, _READ_BYTES), offset)
                    if not chunk:
                        raise errors.Internal(f"a layer's file {path!r} is shorter than its recipe says")
                    offset += len(chunk)
                    yield chunk
        finally:
            os.close(descriptor)


def reassemble(recipe: Path, files: Files, *, displaced: bool) -> Iterator[bytes]:
    """The original uncompressed tar stream, chunk by chunk. displaced: the layer has a shadow."""
    moves = _moves(recipe) if displaced else []
    ordinal = 0
    with recipe.open("rb") as file:
        for kind, number, data, extents in _Records(file):
            if kind == b"R":
                yield data
            elif kind in (b"P", b"S"):
                ordinal += 1
                shadow, path = _where(data, ordinal, moves)
                yield from files.chunks(path, extents if kind == b"S" else [(0, number)], shadow=shadow)


def payloads(recipe: Path, *, displaced: bool) -> Iterator[tuple[bool, bytes, list[tuple[int, int]]]]:
    """(whether it is in the shadow, path, extents) of each file that a recipe reads, in the stream's order."""
    moves = _moves(recipe) if displaced else []
    ordinal = 0
    with recipe.open("rb") as file:
        for kind, number, data, extents in _Records(file):
            if kind in (b"P", b"S"):
                ordinal += 1
                yield *_where(data, ordinal, moves), extents if kind == b"S" else [(0, number)]


def _moves(recipe: Path) -> list[tuple[int, bytes, int]]:
    with recipe.open("rb") as file:
        return [(number, data, extents[0][0]) for kind, number, data, extents in _Records(file) if kind == b"M"]


def _where(path: bytes, ordinal: int, moves: list[tuple[int, bytes, int]]) -> tuple[bool, bytes]:
    """Where file number `ordinal` (from 1) is now: the first move after it was made that took it along, or the tree."""
    for before, moved, number in moves:
        if before >= ordinal and (path == moved or path.startswith(moved + b"/")):
            return True, b"%d" % number + path[len(moved) :]
    return False, path
