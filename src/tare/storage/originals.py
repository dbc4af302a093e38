"""Compressed layers as they came: given out again bit for bit, made again of the layer wherever that is possible.

Must never keep the bytes of one that can be made again, nor hand one out that isn't whole: the digest is checked.

An original is first kept as a file; `slim` then looks for a way to make the same bytes of the layer's tar
(`remake.py`), compares every byte, and deletes the file. What no way makes stays as the file that came, within a bound,
until its layer goes or `drop_kept` gives the space back.

    <root>/<64 hex of the compressed bytes>            only those kept as they came
    <root>/.<random>                                   being written; removed when the engine starts
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from tare import errors, faults
from tare.storage import durable
from tare.storage.database import Database, Transaction
from tare.storage.decompress import Readable, compression_of
from tare.storage.digests import checked_hex
from tare.storage.full_disk import is_full, names_its_disk
from tare.storage.hashing import ThreadedDigest
from tare.storage.remake import Way, find_way, remake
from tare.storage.trash import Trash

_READ_BYTES = 256 << 10
_HEAD_BYTES = 256 << 10
_MAGIC_BYTES = 10
_SHARE_OF_DISK = 0.1


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """A compressed form of a layer. digest, size_bytes: of the compressed bytes. way: how they are made; None: kept."""

    digest: str
    diff_id: str
    size_bytes: int
    compression: str
    way: Way | None = None
    tried: bool = False

    @property
    def kept_bytes(self) -> int:
        """What it costs beside its layer."""
        return self.size_bytes if self.way is None else 0


class Spool:
    """The file that a stream's compressed bytes go to while its layer is made. Closing it throws it away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.full = False

    def write(self, data: bytes) -> None:
        """A full disk is no reason to fail: the layer matters, its compressed form can be done without."""
        if self.full:
            return
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self.descriptor, view) :]
        except OSError:
            self.full = True
            os.ftruncate(self.descriptor, 0)


class Spooling:
    """A stream on its way into a layer: digested and written aside if it is compressed.

    A plain one's digest is the layer's own.
    """

    def __init__(self, stream: Readable, spool: Spool) -> None:
        self._stream = stream
        self._spool = spool
        self._head: bytes | None = b""
        self.digest = ThreadedDigest()
        self.total = 0
        self.compression = "none"

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.total += len(data)
        if self._head is not None:
            self._head += data
            if len(self._head) < _MAGIC_BYTES and data:
                return data
            self.compression = compression_of(self._head)
            self._aside(self._head)
            self._head = None
        else:
            self._aside(data)
        return data

    def _aside(self, data: bytes) -> None:
        if self.compression != "none":
            self.digest.update(data)
            self._spool.write(data)


class Originals:
    """All originals of one store. Any thread may call.

    tar_of: a layer's plain bytes, tar_bytes_of: how many. hold: keeps a layer while it is read; NotFound if it is gone.
    """

    def __init__(
        self,
        root: Path,
        db: Database,
        trash: Trash,
        tar_of: Callable[[str], Iterator[bytes]],
        tar_bytes_of: Callable[[str], int],
        hold: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self.root = root
        self._db = db
        self._trash = trash
        self._tar_of = tar_of
        self._tar_bytes_of = tar_bytes_of
        self._hold = hold
        self._lock = threading.Lock()
        self._unfit: set[str] = set()
        self._spools: set[str] = set()
        self.looked_at = ""
        """The layer whose way `slim` is looking for; empty otherwise."""
        durable.make_private_directory(root)

    # -- looking ------------------------------------------------------------------------------------------------------

    def find(self, digest: str) -> Original | None:
        row = self._db.one("SELECT * FROM originals WHERE digest = ?", (digest,))
        return _original(row) if row else None

    def of(self, diff_id: str) -> list[Original]:
        """The compressed forms of a layer that can be given out, those made again first."""
        rows = self._db.all("SELECT * FROM originals WHERE diff_id = ? ORDER BY way = '', digest", (diff_id,))
        return [original for original in map(_original, rows) if self._usable(original)]

    def all(self) -> list[Original]:
        return [_original(row) for row in self._db.all("SELECT * FROM originals ORDER BY digest")]

    def has(self, digest: str) -> bool:
        """Whether the bytes of this digest can be given out."""
        found = self.find(digest)
        return found is not None and self._usable(found)

    def _usable(self, original: Original) -> bool:
        """A way that was checked with another library is checked anew, once."""
        if original.way is None or original.way.current:
            return original.digest not in self._unfit
        if original.digest in self._unfit:
            return False
        try:
            with self._hold(original.diff_id):
                if self._digest(original) != original.digest:
                    self._unfit.add(original.digest)
                    return False
        except errors.NotFound:
            return False  # collected meanwhile
        current = msgspec.structs.replace(original.way, library=original.way.this_library())
        with self._db.transaction(durable=False) as tx:
            tx.run("UPDATE originals SET way = ? WHERE digest = ?", (_encode(current), original.digest))
        return True

    def _digest(self, original: Original) -> str:
        hashing = ThreadedDigest()
        try:
            for chunk in self._chunks(original):
                hashing.update(chunk)
            return hashing.finish()
        finally:
            hashing.close()

    def open(self, digest: str) -> Iterator[bytes]:
        """The compressed bytes as they came in. Raises NotFound; Internal at the end if they are damaged.

        The caller's lease holds the layer.
        """
        original = self.find(digest)
        if original is None or not self._usable(original):
            raise errors.NotFound(f"original layer {digest}: not found")
        return self._checked(original)

    def _checked(self, original: Original) -> Iterator[bytes]:
        hashing = ThreadedDigest()
        try:
            yield from hashing.passing(self._chunks(original))
            found = hashing.finish()
        finally:
            hashing.close()
        if (found, hashing.total) != (original.digest, original.size_bytes):
            raise errors.Internal(f"compressed layer {original.digest} is damaged: it now has the digest {found}")

    def _chunks(self, original: Original) -> Iterator[bytes]:
        if original.way is None:
            return file_chunks(self.path(original.digest))
        return remake(original.way, self._tar_of(original.diff_id), self._tar_bytes_of(original.diff_id))

    # -- keeping ------------------------------------------------------------------------------------------------------

    @contextmanager
    def spooling(self) -> Iterator[Spool]:
        """A file aside for compressed bytes that come in; gone at the end unless `keep` took it."""
        name = f".{os.urandom(16).hex()}"
        self._spools.add(name)
        try:
            spool = Spool(self.root / name)
            try:
                yield spool
            finally:
                os.close(spool.descriptor)
                spool.path.unlink(missing_ok=True)
        finally:
            self._spools.discard(name)

    def keep(self, spool: Spool, original: Original) -> bool:
        """Takes a whole spool over as the original of a layer that is recorded. On disk when it returns.

        False if it wasn't written whole, or there is no room for it within the bound.
        """
        with self._lock:
            if self.find(original.digest) is not None:
                return True
            if spool.full or not self._room(original.size_bytes):
                return False
            try:
                self._place(spool, original)
            except BaseException as error:
                self.path(original.digest).unlink(missing_ok=True)
                if is_full(error) or isinstance(error, errors.ResourceExhausted):
                    return False
                raise
            self._unfit.discard(original.digest)
        return True

    def _place(self, spool: Spool, original: Original) -> None:
        os.fsync(spool.descriptor)
        faults.point("storage.original.rename")
        spool.path.rename(self.path(original.digest))
        durable.sync_directory(self.root)
        faults.point("storage.original.row")
        with self._db.transaction() as tx:
            tx.run(
                "INSERT INTO originals (digest, diff_id, size_bytes, compression, way, tried, created_ns)"
                " VALUES (?, ?, ?, ?, '', 0, ?)",
                (original.digest, original.diff_id, original.size_bytes, original.compression, time.time_ns()),
            )

    def _room(self, size_bytes: int) -> bool:
        row = self._db.one("SELECT COALESCE(SUM(size_bytes), 0) AS kept FROM originals WHERE way = ''")
        status = os.statvfs(self.root)
        return int(row["kept"] if row else 0) + size_bytes <= status.f_blocks * status.f_frsize * _SHARE_OF_DISK

    # -- making room --------------------------------------------------------------------------------------------------

    @names_its_disk
    def slim(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Looks for ways to make what is kept; returns how many bytes that freed. Slow, for a background thread.

        stopped: asked often; ends the search of the layer that is `looked_at`, and then, if it still says so, all.
        """
        freed = 0
        for original in self.all():
            if stopped():
                break
            if original.way is None and not original.tried:
                freed += self._slim(original, stopped)
        return freed

    def _slim(self, original: Original, stopped: Callable[[], bool]) -> int:
        path = self.path(original.digest)
        try:
            with self._hold(original.diff_id):
                self.looked_at = original.diff_id
                try:
                    way = self._find_way(original, path, stopped)
                    if stopped():
                        return 0
                finally:
                    self.looked_at = ""
        except (FileNotFoundError, errors.NotFound):
            return 0  # collected meanwhile
        with self._lock:
            with self._db.transaction() as tx:
                changed = tx.run(
                    "UPDATE originals SET way = ?, tried = 1 WHERE digest = ?",
                    (_encode(way) if way else "", original.digest),
                )
            faults.point("storage.original.slim")
            if way is None or not changed:
                return 0
            path.unlink(missing_ok=True)
        return original.size_bytes

    def _find_way(self, original: Original, path: Path, stopped: Callable[[], bool]) -> Way | None:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        return find_way(
            head,
            lambda: self._tar_of(original.diff_id),
            self._tar_bytes_of(original.diff_id),
            lambda: file_chunks(path),
            stopped,
        )

    @names_its_disk
    def drop_kept(self) -> int:
        """Forgets every original that is kept as it came; returns the bytes. Manifests over them can't be given out."""
        with self._lock:
            kept = [original for original in self.all() if original.way is None]
            with self._db.transaction() as tx:
                tx.run_many("DELETE FROM originals WHERE digest = ?", [(original.digest,) for original in kept])
            try:
                faults.point("storage.original.drop")
            finally:
                for original in kept:
                    self.path(original.digest).unlink(missing_ok=True)
        return sum(original.size_bytes for original in kept)

    def collect(self, tx: Transaction, layers: Iterable[str], held: set[str]) -> list[str]:
        """Within the transaction that collects layers: forgets those of other layers, and those not held."""
        kept = set(layers)
        garbage = [
            row["digest"]
            for row in tx.all("SELECT digest, diff_id FROM originals")
            if row["diff_id"] not in kept or row["digest"] not in held
        ]
        tx.run_many("DELETE FROM originals WHERE digest = ?", [(digest,) for digest in garbage])
        return garbage

    def discard(self, digests: Iterable[str]) -> None:
        """After that transaction; one that has come in again meanwhile stays."""
        with self._lock:
            for digest in digests:
                if self.find(digest) is None:
                    self._trash.throw(self.path(digest))

    def forget(self, digest: str) -> None:
        """Gives one up, whatever it is held by: its image goes out with a plain layer."""
        with self._lock:
            with self._db.transaction() as tx:
                tx.run("DELETE FROM originals WHERE digest = ?", (digest,))
            self.path(digest).unlink(missing_ok=True)

    def strangers(self) -> list[str]:
        """Names of files that no row has and nobody writes."""
        with self._lock:
            rows = {original.digest[7:] for original in self.all() if original.way is None}
            names = {entry.name for entry in os.scandir(self.root)}
        return sorted(name for name in names - rows if name not in self._spools)

    def remove_stranger(self, name: str) -> bool:
        """Removes such a file, if it still is one."""
        if name not in self.strangers():
            return False
        (self.root / name).unlink(missing_ok=True)
        return True

    def repair(self) -> list[str]:
        """Brings files and rows together after a crash; returns a line for each thing it changed."""
        changed = []
        with self._lock:
            rows = {original.digest: original for original in self.all()}
            files = {entry.name for entry in os.scandir(self.root)} - self._spools
            for name in sorted(files):
                known = rows.get(f"sha256:{name}")
                if known is None or known.way is not None:
                    (self.root / name).unlink(missing_ok=True)
                    changed.append(f"removed unrecorded original layer {name}")
            for digest, original in rows.items():
                if original.way is None and digest[7:] not in files:
                    with self._db.transaction() as tx:
                        tx.run("DELETE FROM originals WHERE digest = ?", (digest,))
                    changed.append(f"forgot lost original layer {digest}")
        return changed

    def path(self, digest: str) -> Path:
        return self.root / checked_hex(digest)


def file_chunks(path: Path) -> Iterator[bytes]:
    """A file's content."""
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            yield chunk


def _encode(way: Way) -> str:
    return msgspec.json.encode(way).decode()


def _original(row: sqlite3.Row) -> Original:
    return Original(
        digest=row["digest"],
        diff_id=row["diff_id"],
        size_bytes=row["size_bytes"],
        compression=row["compression"],
        way=msgspec.json.decode(row["way"], type=Way) if row["way"] else None,
        tried=bool(row["tried"]),
    )
