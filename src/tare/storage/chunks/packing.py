"""Packing: a superseded file's blocks go back to the file system; what differs from its successor is kept as chunks.

Must never take the bytes of a file that a container sees, or that somebody reads: packing asks for both at the moment
that counts, under the locks that they come through. Nor give a block back before its content is on the disk elsewhere.

The file stays where it is, with its names, owner, mode, size and times, so that stacks of layers keep their paths; it
is a hole with a mark. The row in the database decides: a crash before it leaves a plain file, one after it a packed
file of which some blocks may still be there.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from tare import errors, faults
from tare.kernel.disks import punch_hole
from tare.storage.chunks import mark, schema
from tare.storage.chunks.cut import Stopped, difference
from tare.storage.chunks.keep import drop_layers, kept_for_others
from tare.storage.chunks.maps import BASE, Entry, encode, uses
from tare.storage.chunks.packs import Packs
from tare.storage.chunks.reading import Reading, Shelf
from tare.storage.chunks.rows import PackedFile, PackedFiles
from tare.storage.chunks.seen import seen_in
from tare.storage.chunks.share import can_share, share
from tare.storage.chunks.table import Chunks, NewChunks
from tare.storage.chunks.unpack import unpack_into
from tare.storage.database import Database, Transaction
from tare.storage.leases import Lease
from tare.storage.tar_stream import content
from tare.storage.tree_reader import open_beneath, open_directory

_WORTH = 0.75  # of what a file takes now; packing it must not need more than that
UPPER = "upper:"
_COOL_NS = 24 * 3600 * 1_000_000_000


class Layers(Shelf, Protocol):
    """What packing needs of the layers."""

    def exists(self, diff_id: str) -> bool: ...


class _InUse(Exception):
    """A container sees the file, or somebody reads it."""


class Packing:
    """All packed files of one store. Every method may be called from any thread."""

    def __init__(self, root: Path, layers: Layers, db: Database) -> None:
        db.migrate("chunks", schema.STEPS)
        self.db = db
        self.layers = layers
        self.packs = Packs(root)
        self.rows = PackedFiles(db)
        self.chunks = Chunks(db, self.packs)
        self.reading = Reading(layers, self.rows, self.chunks)
        row = db.one("SELECT token FROM chunk_store")
        self._token: str = row["token"] if row else ""
        mark.register(self._token, self.reading)
        self.upper: Callable[[str], Path] = lambda _: root / "no snapshots"
        """Where a snapshot's own files are; the snapshots say it."""
        self._work = threading.Lock()  # one file is packed or unpacked at a time
        self._waiting = 0  # for that lock, to unpack: somebody wants to run a container
        self._waiting_lock = threading.Lock()
        self._stopped = False
        self.shares = can_share(root)
        """The file system lets files share blocks: then versions do, and nothing is packed."""
        self._layers_with = self.rows.diff_ids()
        self.only_bases: set[str] = set()

    # -- what a container needs ------------------------------------------------------------------------------------

    @property
    def in_use(self) -> bool:
        """Whether anything is packed."""
        return bool(self._layers_with)

    def concerns(self, diff_ids: Sequence[str]) -> bool:
        """Whether one of the layers has a packed file; costs no look at the disk."""
        return not self._layers_with.isdisjoint(diff_ids)

    def needed(self, diff_ids: Sequence[str]) -> list[int]:
        """The packed files that show in a stack of layers, bottom first, by their ids."""
        return [
            file_id
            for diff_id in dict.fromkeys(diff_ids)
            if diff_id in self._layers_with
            for file_id, path in self.rows.paths(diff_id)
            if seen_in(diff_ids, diff_id, path, self.layers.path)
        ]

    def unpack_for(self, diff_ids: Sequence[str]) -> int:
        """Makes plain what shows in a stack that a snapshot or lease of the caller's holds; how many files it was.

        They stay plain for a day at least. Raises ResourceExhausted (no space), Internal (damaged).
        """
        files = self.needed(diff_ids)
        for file_id in files:
            self.unpack(file_id, cool=True)
        return len(files)

    def unpack(self, file_id: int, *, cool: bool = False) -> bool:
        """Makes one file plain again; whether it was packed. cool: it stays so for a day, unless `tidy` is eager."""
        with self._hurried(), self._work:
            file = self.rows.get(file_id)
            if file is None:
                return False
            with self._opened(file.diff_id, file.path, os.O_RDWR) as descriptor:
                if mark.packed_as(descriptor) == (self._token, file.mark):  # else somebody put another in its place
                    unpack_into(descriptor, file, self.reading)
            faults.point("storage.unpack.written")
            with self.db.transaction() as tx:
                self.rows.delete(tx, [file.file_id])
                self.chunks.drop_uses(tx, uses(file.entries()))
                if file.base_diff_id is not None and not file.diff_id.startswith(UPPER):
                    not_before_ns = time.time_ns() + _COOL_NS if cool else 0
                    tx.run(
                        "INSERT OR REPLACE INTO superseded (diff_id, path, by_diff_id, not_before_ns)"
                        " VALUES (?, ?, ?, ?)",
                        (file.diff_id, file.path, file.base_diff_id, not_before_ns),
                    )
            faults.point("storage.unpack.recorded")
            self._layers_with = self.rows.diff_ids()
            return True

    @contextmanager
    def _hurried(self) -> Iterator[None]:
        with self._waiting_lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._waiting_lock:
                self._waiting -= 1

    def stop(self) -> None:
        """Packing that is under way gives up soon, as the engine ends."""
        self._stopped = True

    # -- packing -----------------------------------------------------------------------------------------------------

    def pack(self, diff_id: str, path: bytes, by_diff_id: str) -> int | None:
        """Packs a layer's file over that of a later layer, or shares blocks with it; returns the bytes that this freed.

        None: not now, since it is in use or a container waits. 0: it saves too little, or can't be packed at all.
        """
        if not self.shares and self._exists(diff_id) and self._is_seen(diff_id, path):
            return None  # the usual case of what waits: at no cost
        held = [one for one in (diff_id, by_diff_id) if not one.startswith(UPPER)]
        with self._work:
            try:
                with self.layers.lease(held) as lease:
                    return self._pack(diff_id, path, by_diff_id, lease)
            except errors.NotFound:
                return 0  # a layer is gone
            except (_InUse, Stopped):
                self._cut_packs()
                return None
            except BaseException:
                self._cut_packs()
                raise

    def _pack(self, diff_id: str, path: bytes, by_diff_id: str, lease: Lease) -> int | None:
        if self.rows.find(diff_id, path) or self.rows.leads_to(by_diff_id, path, diff_id):
            return 0
        if self.shares:
            return self._share(diff_id, path, by_diff_id)
        if self._is_seen(diff_id, path):
            return None
        with self._opened(diff_id, path, os.O_RDWR) as old_fd, self._opened(by_diff_id, path, os.O_RDONLY) as new_fd:
            status = os.fstat(old_fd)
            if not (can_be_packed(old_fd, status) and stat.S_ISREG(os.fstat(new_fd).st_mode)):
                return 0
            self.packs.check_space()
            new = NewChunks(self.chunks, self.packs)
            allocated = status.st_blocks * 512
            entries, digest = difference(
                _bytes(old_fd, status.st_size), _bytes(new_fd, os.fstat(new_fd).st_size), new.add, self._go_on
            )
            if new.stored_bytes > allocated * _WORTH:
                self._cut_packs()
                return 0
            new.sync()
            faults.point("storage.pack.synced")
            file = PackedFile(
                file_id=0,
                mark=os.urandom(16).hex(),
                diff_id=diff_id,
                path=path,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                sha256=digest,
                base_diff_id=by_diff_id if any(entry.source == BASE for entry in entries) else None,
                map=b"",
                stored_bytes=new.stored_bytes,
            )
            self._record(file, entries, new, old_fd, lease)
            faults.point("storage.pack.recorded")
            self._empty(old_fd, status.st_size, status.st_mtime_ns)
            return max(0, allocated - os.fstat(old_fd).st_blocks * 512 - new.stored_bytes)

    def _share(self, diff_id: str, path: bytes, by_diff_id: str) -> int:
        """The newer file takes the older one's blocks, which others may share already. What that frees nobody tells."""
        with self._opened(diff_id, path, os.O_RDONLY) as old_fd, self._opened(by_diff_id, path, os.O_RDWR) as new_fd:
            if stat.S_ISREG(os.fstat(old_fd).st_mode) and stat.S_ISREG(os.fstat(new_fd).st_mode):
                share(old_fd, new_fd, self.packs.root, self._go_on)
        with self.db.transaction(durable=False) as tx:
            tx.run("DELETE FROM superseded WHERE diff_id = ? AND path = ?", (diff_id, path))
        return 0

    def _exists(self, diff_id: str) -> bool:
        return diff_id.startswith(UPPER) or self.layers.exists(diff_id)

    def _go_on(self) -> bool:
        return not self._stopped and not self._waiting

    def _record(self, file: PackedFile, entries: list[Entry], new: NewChunks, old_fd: int, lease: Lease) -> None:
        """The row; from now on the file is read from chunks. Raises _InUse if somebody came to see it.

        The mark comes within the transaction: a lease that is taken after it finds the mark. Without a row it says
        nothing.
        """
        with self.db.transaction() as tx:
            other = "SELECT 1 FROM lease_holds WHERE digest = ? AND lease_id != ?"
            if tx.one(other, (file.diff_id, lease.lease_id)) or self._is_seen(file.diff_id, file.path):
                raise _InUse
            if not self.chunks.are_there(tx, {entry.source for entry in entries if entry.source > 0}):
                raise _InUse  # another's, which went with its layer meanwhile: they are stored anew the next time
            ids = new.record(tx)
            final = [Entry(entry.length, ids.get(entry.source, entry.source), entry.start) for entry in entries]
            self.chunks.add_uses(tx, uses(final))
            self.rows.insert(tx, msgspec.structs.replace(file, map=encode(final)))
            tx.run("DELETE FROM superseded WHERE diff_id = ? AND path = ?", (file.diff_id, file.path))
            self._layers_with = self._layers_with | {file.diff_id}  # before the row shows: `concerns` never misses it
            mark.set_mark(old_fd, self._token, file.mark)
            faults.point("storage.pack.marked")

    @staticmethod
    def _empty(descriptor: int, size: int, mtime_ns: int) -> None:
        punch_hole(descriptor, 0, size)
        faults.point("storage.pack.emptied")
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))

    def _is_seen(self, diff_id: str, path: bytes) -> bool:
        if diff_id.startswith(UPPER):
            parked = "SELECT 1 FROM parked WHERE snapshot_id = ?"
            return self.db.one(parked, (diff_id.removeprefix(UPPER),)) is None
        rows = self.db.all(
            "SELECT diff_ids FROM snapshots WHERE instr(diff_ids, ?)"
            " AND snapshot_id NOT IN (SELECT snapshot_id FROM parked)",
            (diff_id,),
        )
        return any(seen_in(row["diff_ids"].split(), diff_id, path, self.layers.path) for row in rows)

    @contextmanager
    def _opened(self, diff_id: str, path: bytes, flags: int) -> Iterator[int]:
        try:
            tree_fd = open_directory(self.tree(diff_id))
            try:
                descriptor = open_beneath(tree_fd, path, flags | os.O_NONBLOCK)
            finally:
                os.close(tree_fd)
        except OSError as error:
            raise errors.NotFound(f"{path!r} is not in layer {diff_id}") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    # -- parked snapshots ------------------------------------------------------------------------------------------

    def tree(self, diff_id: str) -> Path:
        """The directory of a layer, or of a parked snapshot's own files."""
        return self.upper(diff_id.removeprefix(UPPER)) if diff_id.startswith(UPPER) else self.layers.path(diff_id)

    def park(self, tx: Transaction, snapshot_id: str, older: Sequence[str]) -> None:
        """Within a transaction: the snapshot's container can't run from now on, so nothing that it shows must be plain.

        Its own large files may be packed, too, over those of the layers `older`, nearest first.
        """
        tx.run("INSERT OR REPLACE INTO parked (snapshot_id) VALUES (?)", (snapshot_id,))
        nearest = " ".join(dict.fromkeys(older))
        tx.run("INSERT OR REPLACE INTO successors (diff_id, older) VALUES (?, ?)", (UPPER + snapshot_id, nearest))

    def unpark(self, tx: Transaction, snapshot_id: str) -> None:
        """Within a transaction: it comes back. Then `unpack_snapshot`, before it is mounted."""
        tx.run("DELETE FROM parked WHERE snapshot_id = ?", (snapshot_id,))
        for table in ("successors", "superseded"):
            tx.run(f"DELETE FROM {table} WHERE diff_id = ?", (UPPER + snapshot_id,))

    def unpack_snapshot(self, snapshot_id: str, diff_ids: Sequence[str]) -> None:
        """Makes plain what a snapshot shows of its layers, and its own files. Costs nothing where nothing is packed."""
        own = UPPER + snapshot_id
        if self.concerns((own,)):
            for file_id, _ in self.rows.paths(own):
                self.unpack(file_id)
        if self.concerns(diff_ids):
            self.unpack_for(diff_ids)

    def forget_snapshot(self, tx: Transaction, snapshot_id: str) -> None:
        """Within the transaction that removes it."""
        self.unpark(tx, snapshot_id)
        if self.concerns((UPPER + snapshot_id,)):
            self.drop(tx, {UPPER + snapshot_id})

    # -- layers that go ---------------------------------------------------------------------------------------------

    def kept(self, tx: Transaction, held: AbstractSet[str]) -> set[str]:
        """Within the transaction that collects layers: those that packed files of held ones go on from."""
        if not self._layers_with:
            self.only_bases = set()
            return set()
        links = self.rows.links(tx)
        alive = held | {diff_id for diff_id, _ in links if diff_id.startswith(UPPER)}
        self.only_bases = kept_for_others(links, alive)
        return self.only_bases

    def drop(self, tx: Transaction, diff_ids: AbstractSet[str]) -> None:
        """Within the same transaction: forgets all of these layers, which `kept` didn't name."""
        drop_layers(tx, self.rows, self.chunks, diff_ids)

    def unpack_over(self, diff_id: str) -> int:
        """Makes plain what goes on from a layer that is kept for nothing else; how many files it was."""
        return sum(self.unpack(file.file_id) for file in self.rows.over(diff_id))

    # -- space -------------------------------------------------------------------------------------------------------

    def give_back(self) -> None:
        """Frees what chunks had that nothing uses any more, unless a reader may still be at it."""
        with self._work:
            rows = self.db.all("SELECT rowid, pack, offset, stored FROM dead_ranges ORDER BY pack, offset")
            # A lease may be that of another process, which reads.
            if not rows or not self.reading.idle or self.db.one("SELECT 1 FROM leases"):
                return
            for pack, offset, size in _merged([(row["pack"], row["offset"], row["stored"]) for row in rows]):
                self.packs.give_back(pack, offset, size)
            faults.point("storage.pack.given_back")
            with self.db.transaction(durable=False) as tx:
                tx.run_many("DELETE FROM dead_ranges WHERE rowid = ?", [(row["rowid"],) for row in rows])
            self._cut_packs()

    def _cut_packs(self) -> list[str]:
        """Takes off what packs have behind their last chunk. The caller has the lock of the work."""
        ends = self.db.all("SELECT pack, MAX(offset + stored) AS size FROM chunks GROUP BY pack")
        return self.packs.cut({row["pack"]: row["size"] for row in ends})

    def repair(self) -> list[str]:
        """Goes on with what a crash cut off; returns a line for each thing it changed."""
        changed = []
        with self._work:
            for file in self.rows.all():
                try:
                    with self._opened(file.diff_id, file.path, os.O_RDWR) as descriptor:
                        if self._pack_to_the_end(descriptor, file):
                            changed.append(f"packed {os.fsdecode(file.path)} of layer {file.diff_id} to the end")
                except errors.NotFound:
                    continue  # `check_packing` tells
            changed += self._cut_packs()
        self.give_back()
        return changed

    def _pack_to_the_end(self, descriptor: int, file: PackedFile) -> bool:
        """Whether something was left to do. A file of a snapshot that came back is let alone: it may be in use."""
        status = os.fstat(descriptor)
        known = mark.packed_as(descriptor) == (self._token, file.mark)
        if known and status.st_blocks <= 8 and status.st_mtime_ns == file.mtime_ns:
            return False
        if file.diff_id.startswith(UPPER) and (not known or self._is_seen(file.diff_id, file.path)):
            return False
        mark.set_mark(descriptor, self._token, file.mark)
        self._empty(descriptor, file.size, file.mtime_ns)
        return True


def _bytes(descriptor: int, size: int) -> Iterator[bytes]:
    return (chunk for _, chunk in content(descriptor, size))


def can_be_packed(descriptor: int, status: os.stat_result) -> bool:
    """A large regular file with one name, whose privileges no write could take away (capabilities(7))."""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return False
    if status.st_size <= mark.MIN_BYTES or status.st_blocks * 512 <= mark.MIN_BYTES:
        return False
    return "security.capability" not in os.listxattr(descriptor)


def _merged(ranges: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Ranges (pack, offset, size) in order, neighbours as one."""
    last: tuple[int, int, int] | None = None
    for pack, offset, size in ranges:
        if last is not None and last[0] == pack and last[1] + last[2] == offset:
            last = (pack, last[1], last[2] + size)
            continue
        if last is not None:
            yield last
        last = (pack, offset, size)
    if last is not None:
        yield last
