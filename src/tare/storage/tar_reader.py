"""A streaming tar reader: entries with their extension headers applied, payloads without copies.

Must never seek, write a file, or believe a length above the limits. Every byte that isn't the payload of a regular
file is handed to `on_raw`, so that a caller can keep what it needs to write the archive again, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tare import errors
from tare.storage import tar_format as fmt
from tare.storage.limits import Limits
from tare.storage.tar_format import BLOCK, ZERO_BLOCK, Entry, InvalidHeader

Raw = Callable[[bytes], None]


class Truncated(errors.InvalidArgument):
    """The stream ended inside the archive."""

    def __init__(self, what: str = "") -> None:
        super().__init__("unexpected EOF" + (f": {what}" if what else ""))


class ChunkSource:
    """Exact reads over an iterator of chunks."""

    __slots__ = ("_chunk", "_chunks", "_position")

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._position = 0

    def _refill(self) -> bool:
        self._position = 0
        self._chunk = next(self._chunks, b"")
        return bool(self._chunk)

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the stream."""
        end = self._position + size
        if end <= len(self._chunk):
            part = self._chunk[self._position : end]
            self._position = end
            return part
        parts = []
        left = size
        while left:
            if self._position == len(self._chunk) and not self._refill():
                break
            part = self._chunk[self._position : self._position + left]
            self._position += len(part)
            left -= len(part)
            parts.append(part)
        return b"".join(parts)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """`size` bytes as views of the chunks they came in; ends early at the end of the stream."""
        while size:
            if self._position == len(self._chunk) and not self._refill():
                return
            piece = memoryview(self._chunk)[self._position : self._position + size]
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def rest(self) -> Iterator[bytes]:
        """All that is left."""
        while self._position < len(self._chunk) or self._refill():
            part = self._chunk[self._position :]
            self._position = len(self._chunk)
            yield part


class TarReader:
    """Use: `while entry := reader.next_entry(): … for piece in reader.payload(): …`, then `finish()`."""

    def __init__(self, chunks: Iterator[bytes], limits: Limits, on_raw: Raw | None = None) -> None:
        self._source = ChunkSource(chunks)
        self._limits = limits
        self._on_raw: Raw = on_raw or _ignore
        self._global: dict[bytes, bytes] = {}
        self._unread = 0
        self._padding = 0
        self.entry: Entry | None = None

    def next_entry(self) -> Entry | None:
        """The next member, None after the last. An unread payload is passed to on_raw."""
        self._skip_payload()
        pax: list[tuple[bytes, bytes]] = []
        long_name = long_link = None
        while True:
            header = self._header()
            if header is None:
                if pax or long_name is not None or long_link is not None:
                    raise Truncated()
                return None
            entry, gnu = fmt.parse_header(header)
            kind = entry.kind
            if kind == b"x":
                pax = fmt.parse_pax_records(self._special(entry))
            elif kind == b"g":
                self._global.update(fmt.parse_pax_records(self._special(entry)))
            elif kind == b"L":
                long_name = self._special(entry).partition(b"\0")[0]
            elif kind == b"K":
                long_link = self._special(entry).partition(b"\0")[0]
            else:
                break
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.linkname = long_link
        if gnu and kind == b"S":
            self._old_sparse(entry, header)
        if pax or self._global:
            self._apply_pax(entry, [*self._global.items(), *pax])
        self._settle(entry)
        self.entry = entry
        return entry

    def payload(self) -> Iterator[memoryview]:
        """The payload of the entry last read, exactly its packed bytes, or Truncated."""
        assert self.entry is not None
        left = self.entry.packed_bytes if self._unread else 0
        for piece in self._source.pieces(left):
            left -= len(piece)
            self._unread -= len(piece)
            yield piece
        if left:
            raise Truncated(fmt.shown(self.entry.name))

    def whole_payload(self) -> bytes:
        """The same in one piece, for what is small."""
        assert self.entry is not None
        data = self._source.take(self._unread)
        if len(data) < self._unread:
            raise Truncated(fmt.shown(self.entry.name))
        self._unread = 0
        return data

    def finish(self) -> None:
        """Reads what follows the end of the archive (padding) to the end of the stream."""
        self._skip_payload()
        for part in self._source.rest():
            self._on_raw(part)

    def _skip_payload(self) -> None:
        while self._unread:
            part = self._source.take(min(self._unread, 1 << 16))
            if not part:
                raise Truncated(fmt.shown(self.entry.name) if self.entry else "")
            self._unread -= len(part)
            self._on_raw(part)
        if self._padding:
            padding = self._source.take(self._padding)
            if padding:
                self._on_raw(padding)
            if padding and len(padding) != self._padding:  # some writers leave the last padding out altogether
                raise Truncated(fmt.shown(self.entry.name) if self.entry else "")
            self._padding = 0

    def _header(self) -> bytes | None:
        header = self._block()
        if header is None:
            return None
        if header == ZERO_BLOCK:
            second = self._block()
            if second is not None and second != ZERO_BLOCK:
                raise InvalidHeader()
            return None
        return header

    def _block(self) -> bytes | None:
        block = self._source.take(BLOCK)
        if not block:
            return None
        self._on_raw(block)
        if len(block) < BLOCK:
            raise Truncated()
        return block

    def _special(self, entry: Entry) -> bytes:
        """The payload of an extension header."""
        if entry.size > self._limits.header_bytes:
            raise InvalidHeader(f"extension header of {entry.size} bytes")
        padded = -(-entry.size // BLOCK) * BLOCK
        data = self._source.take(padded)
        self._on_raw(data)
        if len(data) < padded:
            raise Truncated()
        return data[: entry.size]

    def _settle(self, entry: Entry) -> None:
        """Decides kind and payload as the formats have it, and where the next header is."""
        kind = entry.kind
        if kind in (b"\0", b"7", b"S"):
            kind = fmt.REGULAR
        if kind == fmt.REGULAR and entry.name.endswith(b"/"):
            kind = fmt.DIRECTORY  # before ustar, a directory was a name with a slash
        entry.kind = kind
        if kind in fmt.HEADER_ONLY:
            entry.size = entry.packed_bytes = 0
            entry.extents = None
        if entry.extents is not None:
            fmt.check_extents(entry.extents, entry.size, entry.packed_bytes)
        self._unread = entry.packed_bytes
        self._padding = -entry.packed_bytes % BLOCK

    def _apply_pax(self, entry: Entry, records: list[tuple[bytes, bytes]]) -> None:
        sparse: list[int] = []
        values: dict[bytes, bytes] = {}
        xattrs: dict[bytes, bytes] = {}
        for key, value in records:
            if key.startswith(fmt.XATTR_PREFIX):
                xattrs[key[len(fmt.XATTR_PREFIX) :]] = value
            elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                if (key == b"GNU.sparse.offset") != (len(sparse) % 2 == 0):
                    raise InvalidHeader("malformed sparse map")
                sparse.append(fmt.parse_decimal(value))
            else:
                values[key] = value
        if sum(len(key) + len(value) for key, value in xattrs.items()) > self._limits.header_bytes:
            raise InvalidHeader("extended attributes are too large")
        entry.xattrs = xattrs
        if not values:
            return
        # An empty value undoes an earlier record (POSIX pax).
        if name := values.get(b"path"):
            entry.name = name
        if link := values.get(b"linkpath"):
            entry.linkname = link
        if size := values.get(b"size"):
            entry.size = entry.packed_bytes = fmt.parse_decimal(size)
        if uid := values.get(b"uid"):
            entry.uid = fmt.parse_decimal(uid)
        if gid := values.get(b"gid"):
            entry.gid = fmt.parse_decimal(gid)
        if mtime := values.get(b"mtime"):
            entry.mtime_ns = fmt.parse_pax_time(mtime)
        if any(key.startswith(b"GNU.sparse.") for key in values):
            self._pax_sparse(entry, values, sparse)

    def _pax_sparse(self, entry: Entry, values: dict[bytes, bytes], sparse: list[int]) -> None:
        """PAX forms 0.0 (offset/numbytes records), 0.1 (one map record) and 1.0 (the map leads the payload)."""
        if name := values.get(b"GNU.sparse.name"):
            entry.name = name
        size = values.get(b"GNU.sparse.realsize") or values.get(b"GNU.sparse.size")
        if (values.get(b"GNU.sparse.major"), values.get(b"GNU.sparse.minor")) == (b"1", b"0"):
            sparse = self._leading_map(entry)
        elif b"GNU.sparse.map" in values:
            text = values[b"GNU.sparse.map"]
            sparse = [fmt.parse_decimal(number) for number in text.split(b",")] if text else []
        if size is None or len(sparse) % 2:
            raise InvalidHeader("malformed sparse map")
        entry.size = fmt.parse_decimal(size)
        entry.extents = list(zip(sparse[::2], sparse[1::2], strict=True))

    def _leading_map(self, entry: Entry) -> list[int]:
        """The decimal lines at the head of a 1.0 payload, padded to a block."""
        text = bytearray()
        lines = 0
        wanted = None  # how many lines the map has, known once the first is whole
        while wanted is None or lines < wanted:
            if len(text) >= entry.packed_bytes or len(text) > self._limits.header_bytes:
                raise InvalidHeader("malformed sparse map")
            block = self._block()
            if block is None:
                raise Truncated(fmt.shown(entry.name))
            text += block
            lines += block.count(b"\n")
            if wanted is None and lines:
                wanted = 1 + 2 * fmt.parse_decimal(bytes(text[: text.index(b"\n")]))
        entry.packed_bytes -= len(text)
        if entry.packed_bytes < 0:
            raise InvalidHeader("malformed sparse map")
        return [fmt.parse_decimal(line) for line in bytes(text).split(b"\n")[1:wanted]]

    def _old_sparse(self, entry: Entry, header: bytes) -> None:
        """GNU's old form: four extents in the header, 21 in each block that follows while a flag says so."""
        size = fmt.parse_number(header[483:495])
        numbers: list[int] = []
        table, count, extended = header[386:482], 4, header[482]
        while True:
            for index in range(count):
                field = table[index * 24 : index * 24 + 24]
                if field[0] == 0:
                    break
                numbers += (fmt.parse_number(field[:12]), fmt.parse_number(field[12:]))
            if not extended:
                break
            block = self._block()
            if block is None:
                raise Truncated(fmt.shown(entry.name))
            table, count, extended = block[:504], 21, block[504]
            if len(numbers) > self._limits.header_bytes:
                raise InvalidHeader("sparse map is too long")
        entry.size = size
        entry.extents = list(zip(numbers[::2], numbers[1::2], strict=True))


def _ignore(_: bytes) -> None:
    pass
