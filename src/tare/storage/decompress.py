"""A compressed or plain stream as chunks of plain bytes; the compression is told by its first bytes.

Must never run an external program (CVE-2026-41567), nor let a small input grow without a cap.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from typing import Protocol

from tare import errors
from tare.storage.ahead import Ahead
from tare.storage.limits import Limits

CHUNK_BYTES = 256 << 10
_OUT_BYTES = 1 << 20
_ZSTD_IN_BYTES = 256

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


class Readable(Protocol):
    """All that is asked of a source: read up to `size` bytes, b"" at the end."""

    def read(self, size: int, /) -> bytes: ...


def compression_of(head: bytes) -> str:
    """gzip, bzip2, xz, zstd or none."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    # zstd's skippable frames (RFC 8878, 3.1.2) may come first
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return "none"


def plain_chunks(stream: Readable, limits: Limits) -> Iterator[bytes]:
    """The uncompressed bytes of `stream`, chunk by chunk, within `limits`."""
    head = _read_head(stream)
    compression = compression_of(head)
    source = _chunks(stream, head)
    if compression == "none":
        total = 0
        for chunk in source:
            total += len(chunk)
            limits.check_total(total)
            yield chunk
        return
    ahead = Ahead(source, lambda packed: _unpacked(packed, compression, limits))
    try:
        yield from ahead
    finally:
        ahead.close()


def _unpacked(packed: Iterator[bytes], compression: str, limits: Limits) -> Iterator[bytes]:
    """What the packed chunks hold, checked against the limits as it grows; every failure is InvalidArgument."""
    counted = _Counter(packed)
    total = zeros = 0
    try:
        for chunk in _even(_UNPACKERS[compression](counted, limits)):
            if chunk:
                total += len(chunk)
                if not chunk[0] and not chunk[-1] and chunk == bytes(len(chunk)):
                    zeros += len(chunk)
                limits.check_total(total, counted.total, zeros)
                yield chunk
    except EOFError as error:
        raise errors.InvalidArgument("unexpected EOF") from error
    except (lzma.LZMAError, OSError) as error:
        raise errors.InvalidArgument(f"{compression}: {error}") from error


class _Counter:
    """Passes chunks on and counts them."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self.total = 0

    def next_chunk(self) -> bytes:
        """The next chunk, b"" at the end."""
        chunk = next(self._source, b"")
        self.total += len(chunk)
        return chunk


def _read_head(stream: Readable) -> bytes:
    head = b""
    while len(head) < 10:  # a pipe may bring one byte at a time
        more = stream.read(CHUNK_BYTES)
        if not more:
            break
        head += more
    return head


def _chunks(stream: Readable, head: bytes) -> Iterator[bytes]:
    if head:
        yield head
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def _gzip(source: _Counter, limits: Limits) -> Iterator[bytes]:
    make, failure = _inflater()
    data = source.next_chunk()
    while data:  # members may follow each other (RFC 1952, 2.2)
        unpacker = make()
        while not unpacker.eof:
            if not data:
                data = source.next_chunk()
                if not data:
                    raise EOFError
            try:
                out = unpacker.decompress(data, _OUT_BYTES)
            except failure as error:
                raise errors.InvalidArgument(f"gzip: {error}") from error
            data = unpacker.unconsumed_tail
            if out:
                yield out
        data = _skip_zeros(unpacker.unused_data, source)


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _inflater() -> tuple[Callable[[], _Inflater], type[Exception]]:
    """zlib-ng where it is installed, nearly twice as fast as zlib; here, since an idle engine shouldn't carry it."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:  # pyproject.toml asks for it only where there are wheels
        import zlib

        return (lambda: zlib.decompressobj(wbits=31)), zlib.error
    return (lambda: zlib_ng.decompressobj(wbits=31)), zlib_ng.error  # type: ignore[return-value]


def _skip_zeros(data: bytes, source: _Counter) -> bytes:
    """Tapes and some tools pad a gzip with zeros; gzip(1) ignores them."""
    data = data.lstrip(b"\0") or source.next_chunk()
    while data and not data.strip(b"\0"):
        data = source.next_chunk()
    return data.lstrip(b"\0")


class _Unpacker(Protocol):
    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _streams(make: Callable[[], _Unpacker], source: _Counter) -> Iterator[bytes]:
    """bzip2 and xz have the same Python interface; streams may follow each other."""
    data = source.next_chunk()
    while data:
        unpacker = make()
        while not unpacker.eof:
            if not data and unpacker.needs_input:
                data = source.next_chunk()
                if not data:
                    raise EOFError
            out = unpacker.decompress(data, _OUT_BYTES)
            data = b""
            if out:
                yield out
        data = _skip_zeros(unpacker.unused_data, source)


def _bzip2(source: _Counter, limits: Limits) -> Iterator[bytes]:
    return _streams(bz2.BZ2Decompressor, source)  # type: ignore[arg-type]


def _xz(source: _Counter, limits: Limits) -> Iterator[bytes]:
    return _streams(lambda: lzma.LZMADecompressor(memlimit=limits.window_bytes), source)  # type: ignore[arg-type,return-value]


def _zstd(source: _Counter, limits: Limits) -> Iterator[bytes]:
    import zstandard  # here, since an idle engine shouldn't carry it

    decompressor = zstandard.ZstdDecompressor(max_window_size=limits.window_bytes)
    data = source.next_chunk()
    while data:
        unpacker, left = decompressor.decompressobj(), memoryview(data)
        while not unpacker.eof:
            if not left:
                left = memoryview(source.next_chunk())
                if not left:
                    raise EOFError
            # No cap on what one call gives: 4 bytes can be a block of 128 KiB (RFC 8878, 3.1.1.2), so feed little.
            piece, left = left[:_ZSTD_IN_BYTES], left[_ZSTD_IN_BYTES:]
            try:
                yield unpacker.decompress(piece)
            except zstandard.ZstdError as error:
                raise errors.InvalidArgument(f"zstd: {error}") from error
        data = _skip_zeros(unpacker.unused_data + bytes(left), source)


def _even(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks that are neither so small that they cost time nor so large that they cost memory."""
    small: list[bytes] = []
    size = 0
    for chunk in chunks:
        if len(chunk) > _OUT_BYTES:
            yield b"".join(small)
            small, size = [], 0
            yield from (chunk[start : start + _OUT_BYTES] for start in range(0, len(chunk), _OUT_BYTES))
        elif chunk:
            small.append(chunk)
            size += len(chunk)
            if size >= CHUNK_BYTES:
                yield b"".join(small)
                small, size = [], 0
    yield b"".join(small)


_UNPACKERS: dict[str, Callable[[_Counter, Limits], Iterator[bytes]]] = {
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "zstd": _zstd,
}
