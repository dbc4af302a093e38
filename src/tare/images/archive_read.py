"""An image archive's members in one pass: layers go straight into the store, documents into memory.

Must never trust a name or digest in the archive, keep a document above the cap (CVE-2023-25153), or decide what an
image is: that is read from the documents afterwards (`archive_docker.py`, `archive_oci.py`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

import msgspec

from tare import faults
from tare.errors import InvalidArgument, TooLarge
from tare.images.archive_layers import Arriving
from tare.oci.image_spec import MAX_DOCUMENT_BYTES
from tare.storage import tar_format as fmt
from tare.storage.decompress import CHUNK_BYTES, Readable, compression_of, plain_chunks
from tare.storage.hashing import ThreadedDigest
from tare.storage.layers import Blob, Layers, Lease
from tare.storage.limits import DEFAULT_LIMITS, Limits
from tare.storage.tar_format import BLOCK, Entry, shown
from tare.storage.tar_reader import TarReader
from tare.storage.tree_writer import clean_path
from tare.values.digest import digest_bytes

MAX_MEMBERS = 100_000
MAX_DOCUMENTS_BYTES = 64 << 20
_MAX_LINKS = 40
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")
_ANY_BLOB = re.compile(r"blobs/")

# (name of the member, bytes read of it, its size)
Progress = Callable[[str, int, int], None]


class StoredLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that the archive brought. digest, size: of the bytes as they were in it, perhaps compressed.

    kept: they can be given out again so.
    """

    digest: str
    size: int
    diff_id: str
    kept: bool = True

    @property
    def plain(self) -> bool:
        return self.digest == self.diff_id


class Contents:
    """What an archive holds. Names are clean and relative; a link stands for what it leads to."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.layers: dict[str, StoredLayer] = {}
        self.links: dict[str, str] = {}
        self.too_large: set[str] = set()

    def document(self, name: str, asked_by: str) -> bytes:
        """A document. Raises InvalidArgument that names who asks for it if it isn't there or isn't one."""
        found = self._resolve(name)
        if found in self.too_large:
            raise TooLarge(f'invalid archive: "{_cut(name)}" is larger than {MAX_DOCUMENT_BYTES} bytes')
        if found in self.layers:
            raise InvalidArgument(f'invalid archive: {asked_by} refers to "{_cut(name)}", which is a layer')
        if found not in self.documents:
            raise _missing(name, asked_by)
        return self.documents[found]

    def has(self, name: str) -> bool:
        found = self._resolve(name)
        return found in self.documents or found in self.layers or found in self.too_large

    def has_document(self, name: str) -> bool:
        return self._resolve(name) in self.documents

    def layer(self, name: str, asked_by: str) -> StoredLayer:
        """A layer. Raises InvalidArgument as `document` does."""
        found = self._resolve(name)
        if found in self.layers:
            return self.layers[found]
        if found in self.documents or found in self.too_large:
            raise InvalidArgument(f'invalid archive: {asked_by} refers to "{_cut(name)}", which is no tar archive')
        raise _missing(name, asked_by)

    def _resolve(self, name: str) -> str:
        found = _clean(name.encode("utf-8", "surrogateescape"))
        for _ in range(_MAX_LINKS):
            if found not in self.links:
                return found
            found = self.links[found]
        raise InvalidArgument(f'invalid archive: "{_cut(name)}" is a circle of links')


def read_archive(
    stream: Readable,
    layers: Layers,
    lease: Lease,
    progress: Progress,
    limits: Limits = DEFAULT_LIMITS,
) -> Contents:
    """Reads a whole archive, plain or compressed. Its layers are on disk and held by the lease when it returns."""
    reading = _Reading(TarReader(plain_chunks(stream, limits), limits), layers, lease, progress, limits)
    try:
        reading.run()
    except BaseException as error:
        earlier = reading.arriving.abandon()
        if earlier is None or earlier is error:
            raise
        raise earlier from error
    return reading.contents


class _Reading:
    def __init__(self, reader: TarReader, layers: Layers, lease: Lease, progress: Progress, limits: Limits) -> None:
        self.contents = Contents()
        self.arriving = Arriving()
        self._reader = reader
        self._layers = layers
        self._lease = lease
        self._progress = progress
        self._limits = limits
        self._seen: set[str] = set()
        self._documents_bytes = 0

    def run(self) -> None:
        while entry := self._reader.next_entry():
            if entry.kind == fmt.DIRECTORY:
                clean_path(entry.name)
                continue
            name = _clean(entry.name)
            if name in self._seen:
                raise InvalidArgument(f'invalid archive: "{_cut(name)}" is in it twice')
            self._seen.add(name)
            if len(self._seen) > MAX_MEMBERS:
                raise TooLarge(f"invalid archive: it has more than {MAX_MEMBERS} members")
            self._member(name, entry)
        self._reader.finish()
        self.arriving.settle()

    def _member(self, name: str, entry: Entry) -> None:
        if entry.kind == fmt.SYMLINK:
            base = posixpath.dirname(name)
            target = entry.linkname if entry.linkname.startswith(b"/") else base.encode() + b"/" + entry.linkname
            self.contents.links[name] = _clean(target)
        elif entry.kind == fmt.HARD_LINK:
            self.contents.links[name] = _clean(entry.linkname)
        elif entry.kind != fmt.REGULAR:
            raise InvalidArgument(f'invalid archive: "{_cut(name)}" is neither a file nor a link')
        elif entry.extents is not None:
            raise InvalidArgument(f'invalid archive: "{_cut(name)}" is a sparse file')
        else:
            self._file(name, entry.size)

    def _file(self, name: str, size: int) -> None:
        payload = _Payload(self._reader)
        head = payload.peek(BLOCK)
        if _is_layer(head):
            payload.progress = lambda done: self._progress(name, done, size)
            self._layer(name, size, payload, head)
            return
        if size > MAX_DOCUMENT_BYTES:
            self.contents.too_large.add(name)  # only an error if something refers to it
            return
        data = payload.read_whole()
        self._documents_bytes += len(data)
        if self._documents_bytes > MAX_DOCUMENTS_BYTES:
            raise TooLarge(f"invalid archive: its documents are larger than {MAX_DOCUMENTS_BYTES} bytes")
        blob = _BLOB.match(name)
        if blob:
            _check(name, f"sha256:{blob[1]}", digest_bytes(data))
        elif _ANY_BLOB.match(name):
            raise InvalidArgument(f'invalid archive: "{_cut(name)}" is not the name of a blob')
        self.contents.documents[name] = data

    def _layer(self, name: str, size: int, payload: _Payload, head: bytes) -> None:
        """Stores a layer, or only checks it where the store has it already."""
        blob = _BLOB.match(name)
        if _ANY_BLOB.match(name) and not blob:
            raise InvalidArgument(f'invalid archive: "{_cut(name)}" is not the name of a blob')
        named = f"sha256:{blob[1]}" if blob else ""
        packed = compression_of(head) != "none"
        present = self._present(named, packed)
        if present:
            digest = payload.digest()
            _check(name, named, digest)
            self._have(name, StoredLayer(digest=digest, size=size, diff_id=present))
            return

        def stored(blob: Blob) -> None:
            if named:
                _check(name, named, blob.digest)
            layer = StoredLayer(digest=blob.digest, size=size, diff_id=blob.layer.diff_id, kept=blob.original)
            self._have(name, layer)

        self.arriving.take(payload.read, lambda stream: self._store(name, stream), stored)

    def _have(self, name: str, layer: StoredLayer) -> None:
        self.contents.layers[name] = layer
        faults.point("images.archive.layer")

    def _present(self, digest: str, packed: bool) -> str:
        """The diff ID of a layer that is here under this digest, held from now on; "" if it isn't."""
        if digest and packed:
            original = self._layers.hold_original(digest, self._lease)
            return original.diff_id if original else ""
        return digest if digest and self._layers.hold(digest, self._lease) else ""

    def _store(self, name: str, stream: Readable) -> Blob:
        try:
            return self._layers.add_blob(stream, self._limits, lease=self._lease)
        except InvalidArgument as error:
            kind = TooLarge if isinstance(error, TooLarge) else InvalidArgument
            raise kind(f'layer "{_cut(name)}": {error}') from error


class _Payload:
    """The payload of the member that the reader stands on, as a stream."""

    def __init__(self, reader: TarReader) -> None:
        self._pieces = reader.payload()
        self._rest = b""
        self._done = 0
        self.progress: Callable[[int], None] = lambda done: None

    def peek(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        return self._rest[:size]

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """At least one byte, at most size; b"" at the end."""
        if not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = bytes(piece)
        data, self._rest = self._rest[:size], self._rest[size:]
        self._done += len(data)
        self.progress(self._done)
        return data

    def read_whole(self) -> bytes:
        parts = []
        while part := self.read():
            parts.append(part)
        return b"".join(parts)

    def digest(self) -> str:
        """The digest of all that is left."""
        digesting = ThreadedDigest()
        try:
            while data := self.read():
                digesting.update(data)
            return digesting.finish()
        finally:
            digesting.close()


def _is_layer(head: bytes) -> bool:
    """Whether a file that begins so is a tar archive, plain or compressed."""
    if compression_of(head) != "none":
        return True
    if len(head) < BLOCK:
        return False
    if head == fmt.ZERO_BLOCK:
        return True  # a tar without members
    try:
        fmt.check_sum(head)
    except InvalidArgument:
        return False
    return True


def _check(name: str, wanted: str, found: str) -> None:
    if wanted != found:
        raise InvalidArgument(f'invalid archive: "{name}" has the digest {found}')


def _clean(name: bytes) -> str:
    return clean_path(name).decode("utf-8", "surrogateescape")


def _cut(name: str) -> str:
    return shown(name.encode("utf-8", "surrogateescape"))


def _missing(name: str, asked_by: str) -> InvalidArgument:
    return InvalidArgument(f'invalid archive: {asked_by} refers to "{_cut(name)}", which is not in it')
