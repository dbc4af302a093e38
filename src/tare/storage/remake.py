"""Ways to make a compressed stream again of its plain bytes: which compressor with which settings gave these bytes.

Must never be believed without a look at every byte: whoever finds a way compares its whole output once, whoever uses it
checks the digest.

Known are zlib (Python, Java, bsdtar, nginx, Tare itself), pigz, and zstd's own library. Go's compress/gzip, klauspost's
packages (Docker, containerd, BuildKit, podman, skopeo) and gzip(1) search for matches in ways of their own; what they
made is kept as it came (docs/adr/0013-compressed-layers.md).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from tare.errors import Unsupported
from tare.storage.pigz import Pigz

TRY_BYTES = 1 << 20
_MAX_TAIL_BYTES = 4096
_LEVELS = (6, 9, 1, 5, 4, 3, 2, 7, 8)
_ZSTD_WAYS = ((3, 0), (1, 0), (2, 0), (5, 0), (6, 0), (9, 0), (3, 1))  # level, threads
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Way(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings that make the stream. head, tail: bytes (gzip's header; what follows its trailer) that are kept as hex.

    library: what computed it when it was checked; another version may compress otherwise.
    """

    kind: str
    level: int
    memory: int = 8
    threads: int = 0
    size_known: bool = False
    checksum: bool = False
    head: str = ""
    tail: str = ""
    library: str = ""

    @property
    def current(self) -> bool:
        """Whether the library is still the one that it was checked with."""
        return self.library == self.this_library()

    def this_library(self) -> str:
        return _library(self.kind)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _library(kind: str) -> str:
    if kind == "zstd":
        import zstandard

        return ".".join(str(part) for part in zstandard.ZSTD_VERSION)
    return zlib.ZLIB_RUNTIME_VERSION


def remake(way: Way, plain: Iterable[bytes], plain_bytes: int) -> Iterator[bytes]:
    """The compressed stream that `way` makes of these bytes."""
    if way.kind == "zstd":
        compressor = _zstd(way, plain_bytes)
        for chunk in plain:
            if made := compressor.compress(chunk):
                yield made
        yield compressor.flush()
        return
    yield bytes.fromhex(way.head)
    compressor = _deflate(way)
    crc = 0
    size = 0
    for chunk in plain:
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
        if made := compressor.compress(chunk):
            yield made
    yield compressor.flush()
    yield crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little") + bytes.fromhex(way.tail)


def _deflate(way: Way) -> _Compressor:
    if way.kind == "pigz":
        return Pigz(way.level)
    if way.kind == "zlib":
        return zlib.compressobj(way.level, zlib.DEFLATED, -15, way.memory)
    raise Unsupported(f"a layer compressed by {way.kind!r} can't be made again by this Tare")


def _zstd(way: Way, plain_bytes: int) -> _Compressor:
    import zstandard

    compressor = zstandard.ZstdCompressor(
        level=way.level, threads=way.threads, write_content_size=way.size_known, write_checksum=way.checksum
    )
    made: _Compressor = compressor.compressobj(size=plain_bytes if way.size_known else -1)
    return made


def candidates(head: bytes) -> list[Way]:
    """Ways worth a try for a stream that begins with `head`."""
    if head.startswith(b"\x1f\x8b\x08"):
        return _gzip_candidates(head)
    if head.startswith(_ZSTD_MAGIC) and len(head) > 4:
        # RFC 8878, 3.1.1.1.1: the frame header's descriptor says whether it has a size and a checksum
        descriptor = head[4]
        known, checksum = bool(descriptor >> 6 or descriptor & 0x20), bool(descriptor & 4)
        return [
            Way(
                kind="zstd", level=level, threads=threads, size_known=known, checksum=checksum, library=_library("zstd")
            )
            for level, threads in _ZSTD_WAYS
        ]
    return []


def _gzip_candidates(head: bytes) -> list[Way]:
    header = gzip_header(head)
    if header is None:
        return []
    library = _library("zlib")
    found = []
    for kind, memory in (("zlib", 8), ("zlib", 9), ("pigz", 8)):
        found += [Way(kind=kind, level=level, memory=memory, head=header.hex(), library=library) for level in _LEVELS]
    return found


def gzip_header(head: bytes) -> bytes | None:
    """The header of a gzip member (RFC 1952, 2.3) that `head` begins with; None if it doesn't end in it."""
    if len(head) < 10:
        return None
    flags, end = head[3], 10
    if flags & 4:
        end += 2 + int.from_bytes(head[end : end + 2], "little")
    for flag in (8, 16):
        if flags & flag:
            end = head.find(b"\0", end) + 1
            if not end:
                return None
    if flags & 2:
        end += 2
    return head[:end] if end <= len(head) else None


def find_way(head: bytes, plain: Callable[[], Iterator[bytes]], plain_bytes: int, packed: Callable[[], Iterator[bytes]],
             stopped: Callable[[], bool] = lambda: False) -> Way | None:  # fmt: skip
    """The way that makes exactly the stream `packed` of `plain`, whose every byte was compared; None if none does."""
    begin = _beginning(plain(), TRY_BYTES)
    for way in candidates(head):
        if stopped():
            return None
        if _begins(way, begin, plain_bytes, head) and (found := _whole(way, plain, plain_bytes, packed, stopped)):
            return found
    return None


def _beginning(chunks: Iterator[bytes], size: int) -> list[bytes]:
    """The first chunks, about `size` bytes of them."""
    taken = []
    for chunk in chunks:
        taken.append(chunk)
        size -= len(chunk)
        if size <= 0:
            break
    return taken


def _begins(way: Way, begin: list[bytes], plain_bytes: int, head: bytes) -> bool:
    """Whether what the way makes of the beginning agrees as far as both are known."""
    made = bytes.fromhex(way.head)
    compressor = _zstd(way, plain_bytes) if way.kind == "zstd" else _deflate(way)
    try:
        for chunk in begin:
            made += compressor.compress(chunk)
    except ValueError:
        return False
    if sum(map(len, begin)) >= plain_bytes:
        made += compressor.flush()
    common = min(len(made), len(head))
    return made[:common] == head[:common]


def _whole(way: Way, plain: Callable[[], Iterator[bytes]], plain_bytes: int, packed: Callable[[], Iterator[bytes]],
           stopped: Callable[[], bool]) -> Way | None:  # fmt: skip
    """The way if its output is the stream, with what follows the gzip trailer as its tail; None if not."""
    wanted = packed()
    have = b""
    for made in remake(way, plain(), plain_bytes):
        if stopped():
            return None
        while len(have) < len(made):
            more = next(wanted, b"")
            if not more:
                return None
            have += more
        if not have.startswith(made):
            return None
        have = have[len(made) :]
    tail = have
    for more in itertools.islice(wanted, 1):
        tail += more
    if len(tail) > _MAX_TAIL_BYTES or next(wanted, b""):
        return None
    if tail and way.kind == "zstd":
        return None
    return msgspec.structs.replace(way, tail=tail.hex())
