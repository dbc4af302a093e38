"""Layers: the trees of tar archives, each in one place by its diff ID, kept while anything refers to it.

Must never show a layer that isn't whole, nor delete one that a root row or a lease holds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from tare import errors, faults
from tare.storage import durable, schema
from tare.storage.chunks.packing import Packing
from tare.storage.chunks.tidy import Tidied, tidy
from tare.storage.damage import Damage, clear
from tare.storage.database import Database, Transaction
from tare.storage.decompress import Readable
from tare.storage.digests import checked_hex
from tare.storage.extract import Extracted, extract
from tare.storage.full_disk import names_its_disk
from tare.storage.leases import Lease as Lease
from tare.storage.leases import Leases
from tare.storage.limits import DEFAULT_LIMITS, Limits
from tare.storage.originals import Original, Originals, Spooling
from tare.storage.recipe import TreeFiles, reassemble
from tare.storage.trash import Trash
from tare.storage.tree_reader import open_directory

RECIPE = "recipe.zst"
TREE = "tree"
SHADOW = "shadow"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's record. size_bytes: of its regular files; tar_bytes: of the uncompressed archive."""

    diff_id: str
    size_bytes: int
    tar_bytes: int
    root_entry: bool = False
    opaque_root: bool = False
    created_ns: int = 0


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as it came in. digest, size_bytes: of the bytes as they were, perhaps compressed.

    original: they can be given out again so.
    """

    layer: Layer
    digest: str
    size_bytes: int
    compression: str
    original: bool


class Layers:
    """All layers below one root. Every method may be called from any thread."""

    def __init__(self, root: Path | str, db: Database) -> None:
        self.root = Path(root)
        self.db = db
        db.migrate("storage", schema.STEPS)
        self._layers = self.root / "layers"
        self._staging = self.root / "staging"
        durable.make_private_directory(self.root)
        durable.make_private_directory(self._layers)
        durable.make_spread_directory(self._staging)
        self.trash = Trash(self.root / "trash")
        self.leases = Leases(db)
        self.damage = Damage(db)
        self.originals = Originals(
            self.root / "originals", db, self.trash, self.reassemble, lambda diff_id: self.get(diff_id).tar_bytes,
            lambda diff_id: self.lease([diff_id], what="look at a compressed layer", reads=True),
        )  # fmt: skip
        self.packing = Packing(self.root / "packs", self, db)
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self.only_leased: frozenset[str] = frozenset()
        """Layers that the last collection spared for a lease alone."""
        self._untidy = False  # something could not be thrown away: `empty_trash` tries again
        self.repair()

    # -- making -------------------------------------------------------------------------------------------------

    @names_its_disk
    def add(self, stream: Readable, limits: Limits = DEFAULT_LIMITS, *, lease: Lease | None = None) -> Layer:
        """Stores an archive (plain, gzip, bzip2, xz or zstd) as a layer. On disk and recorded when it returns.

        With a lease the layer can't be collected before the lease ends. Raises InvalidArgument for a bad archive.
        """
        with self.staged() as staging:
            extracted = self._extract(stream, staging, limits)
            return self.publish(staging, extracted, lease=lease)

    @names_its_disk
    def add_blob(self, stream: Readable, limits: Limits = DEFAULT_LIMITS, *, lease: Lease) -> Blob:
        """The same of an archive that may be compressed: it can then be given out again as it came (`originals`).

        The stream is read to its end.
        """
        with self.originals.spooling() as spool:
            source = Spooling(stream, spool)
            try:
                layer = self.add(source, limits, lease=lease)
                while source.read(1 << 18):
                    pass
                compression = source.compression
                digest = layer.diff_id if compression == "none" else source.digest.finish()
            finally:
                source.digest.close()
            blob = Blob(
                layer=layer,
                digest=digest,
                size_bytes=source.total,
                compression=compression,
                original=compression == "none",
            )
            if compression == "none":
                return blob
            with self.db.transaction(durable=False) as tx:
                self.leases.hold(tx, lease, digest)
            lease.originals.add(digest)
            original = Original(
                digest=digest, diff_id=layer.diff_id, size_bytes=blob.size_bytes, compression=compression
            )
            return msgspec.structs.replace(blob, original=self.originals.keep(spool, original))

    def hold_original(self, digest: str, lease: Lease) -> Original | None:
        """A compressed layer that is here and whole, held by the lease from now on with its layer; else None."""
        found = self.originals.find(digest)
        if found is None or self.damage.of(found.diff_id) or not self.originals.has(digest):
            return None
        with self.db.transaction(durable=False, frees=lease.reads) as tx:
            if tx.one("SELECT 1 FROM originals WHERE digest = ?", (digest,)) is None:
                return None
            for held in (digest, found.diff_id):
                self.leases.hold(tx, lease, held)
        lease.originals.add(digest)
        lease.diff_ids.add(found.diff_id)
        return found

    def make_again(self, diff_id: str, stream: Readable) -> bool:
        """Replaces a layer that is marked as damaged by what the stream holds, if it is that layer."""
        with self.staged() as staging:
            extracted = self._extract(stream, staging, DEFAULT_LIMITS)
            if extracted.diff_id != diff_id:
                return False
            self.publish(staging, extracted)
        return True

    def _extract(self, stream: Readable, staging: Path, limits: Limits) -> Extracted:
        fds = [open_directory(staging / TREE), open_directory(staging / SHADOW)]
        try:
            return extract(stream, fds[0], fds[1], self.new_recipe(staging), limits)
        finally:
            for descriptor in fds:
                os.close(descriptor)

    def leftovers(self) -> list[tuple[str, Callable[[], object]]]:
        """Directories of no layer that nobody works on: name, and what throws each away."""
        with self._lock:
            known = {row["diff_id"][7:] for row in self.db.all("SELECT diff_id FROM layers")}
            paths = [Path(entry.path) for entry in os.scandir(self._layers) if entry.name not in known]
            paths += [path for path in self._staging.iterdir() if path.name not in self._under_way]
        return [(f"{path.parent.name}/{path.name}", partial(self._throw_leftover, path)) for path in sorted(paths)]

    def _throw_leftover(self, path: Path) -> bool:
        with self._lock:
            if path.parent == self._layers and self._row(f"sha256:{path.name}") is not None:
                return True  # it has come again meanwhile
            return self._throw(path)

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """An empty layer directory in the making, thrown away unless it is published."""
        staging = self._staging / os.urandom(16).hex()
        with self._lock:
            self._under_way.add(staging.name)
        staging.mkdir(mode=0o700)
        try:
            (staging / TREE).mkdir(mode=0o755)
            (staging / TREE).chmod(0o755)
            (staging / SHADOW).mkdir(mode=0o700)
            faults.point("storage.layer.stage")
            yield staging
        finally:
            with self._lock:
                thrown = self._throw(staging)
                self._under_way.discard(staging.name)
            if thrown:
                self._delete_thrown()

    def _throw(self, path: Path) -> bool:
        """Throws away what is no layer any more. A disk that is too full even for that is no reason to fail."""
        try:
            return self.trash.throw(path)
        except OSError:
            self._untidy = True
            return False

    def _delete_thrown(self) -> None:
        try:
            self.trash.empty()
        except OSError:
            self._untidy = True

    @staticmethod
    def new_recipe(staging: Path) -> int:
        return os.open(staging / RECIPE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def publish(self, staging: Path, extracted: Extracted, *, lease: Lease | None = None) -> Layer:
        """Puts a finished staging directory in its place; where the layer already is, the staged one is dropped."""
        layer = Layer(
            diff_id=extracted.diff_id,
            size_bytes=extracted.size_bytes,
            tar_bytes=extracted.tar_bytes,
            root_entry=extracted.root_entry,
            opaque_root=extracted.opaque_root,
            created_ns=time.time_ns(),
        )
        present = self._hold(layer.diff_id, lease)
        if present is not None:
            return present
        if not any(os.scandir(staging / SHADOW)):
            (staging / SHADOW).rmdir()
        durable.sync_tree(staging)
        faults.point("storage.layer.sync")
        with self._lock:
            present = self._held_row(layer.diff_id, lease)
            if present is None:
                self._place(staging, layer, lease)
        return present or layer

    def _place(self, staging: Path, layer: Layer, lease: Lease | None) -> None:
        place = self._directory(layer.diff_id)
        replaced = self._staging / f"{place.name}.{os.urandom(8).hex()}"
        if self._row(layer.diff_id) is None:
            self.trash.throw(place)  # left by a crash between rename and row
        elif place.exists():
            # Damaged; containers that run over it may keep what is left of it until the engine's next start.
            self._under_way.add(replaced.name)
            place.rename(replaced)
        try:
            faults.point("storage.layer.rename")
            staging.rename(place)
            faults.point("storage.layer.row")
            durable.sync_directory(self._layers)
            self._record(layer, lease)
        except BaseException:
            self.trash.throw(place)
            if replaced.exists():
                replaced.rename(place)
            raise
        faults.point("storage.layer.added")

    def _record(self, layer: Layer, lease: Lease | None) -> None:
        with self.db.transaction() as tx:
            tx.run(
                "INSERT OR REPLACE INTO layers (diff_id, size_bytes, tar_bytes, root_entry, opaque_root, created_ns)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    layer.diff_id,
                    layer.size_bytes,
                    layer.tar_bytes,
                    layer.root_entry,
                    layer.opaque_root,
                    layer.created_ns,
                ),
            )
            clear(tx, layer.diff_id)
            if lease is not None:
                self.leases.hold(tx, lease, layer.diff_id)
        if lease is not None:  # not before: what isn't recorded must not count as held
            lease.diff_ids.add(layer.diff_id)

    # -- looking ------------------------------------------------------------------------------------------------

    def get(self, diff_id: str) -> Layer:
        layer = self._row(diff_id)
        if layer is None:
            raise errors.NotFound(f"layer {diff_id}: not found")
        return layer

    def find(self, diff_id: str) -> Layer | None:
        return self._row(diff_id)

    def exists(self, diff_id: str) -> bool:
        return self._row(diff_id) is not None

    def all(self) -> list[Layer]:
        return [_layer(row) for row in self.db.all("SELECT * FROM layers ORDER BY diff_id")]

    def path(self, diff_id: str) -> Path:
        """The directory that holds the layer's tree, with whiteouts and opaque marks in overlayfs' form."""
        return self._directory(diff_id) / TREE

    def reassemble(self, diff_id: str) -> Iterator[bytes]:
        """The layer's uncompressed tar as it came in, bit for bit."""
        self.get(diff_id)
        directory = self._directory(diff_id)
        fds = [open_directory(directory / TREE)]
        try:
            shadow = directory / SHADOW
            if shadow.exists():
                fds.append(open_directory(shadow))
            files = TreeFiles(fds[0], fds[1] if len(fds) > 1 else None)
            yield from reassemble(directory / RECIPE, files, displaced=len(fds) > 1)
        finally:
            for descriptor in fds:
                os.close(descriptor)

    def _directory(self, diff_id: str) -> Path:
        return self._layers / checked_hex(diff_id)

    def _row(self, diff_id: str) -> Layer | None:
        row = self.db.one("SELECT * FROM layers WHERE diff_id = ?", (diff_id,))
        return _layer(row) if row else None

    # -- keeping and collecting -----------------------------------------------------------------------------------

    @contextmanager
    def lease(self, diff_ids: Sequence[str] = (), what: str = "", *, reads: bool = False) -> Iterator[Lease]:
        """A lease on the named layers (NotFound if one is gone) and on those added with it.

        what: the verb. reads: it stores nothing, and must go on a full disk.
        """
        lease = Lease(reads=reads)
        with self.db.transaction(durable=False, frees=reads) as tx:
            self.leases.begin(tx, lease, what)
            for diff_id in diff_ids:
                if tx.one("SELECT 1 FROM layers WHERE diff_id = ?", (diff_id,)) is None:
                    raise errors.NotFound(f"layer {diff_id}: not found")
                self.leases.hold(tx, lease, diff_id)
                lease.diff_ids.add(diff_id)
        try:
            yield lease
        finally:
            self.leases.end(lease)
            if self.only_leased:
                with suppress(errors.ResourceExhausted):  # a full disk: the next collection takes them
                    self.collect()

    def hold(self, diff_id: str, lease: Lease) -> Layer | None:
        """The layer, held by the lease from now on; None if it isn't there."""
        return self._hold(diff_id, lease)

    def _hold(self, diff_id: str, lease: Lease | None) -> Layer | None:
        with self._lock:
            return self._held_row(diff_id, lease)

    def _held_row(self, diff_id: str, lease: Lease | None) -> Layer | None:
        present = self._row(diff_id)
        if present is None or self.damage.of(diff_id):
            return None
        if lease is None or diff_id in lease.diff_ids:
            return present
        with self.db.transaction(durable=False, frees=lease.reads) as tx:
            row = tx.one("SELECT * FROM layers WHERE diff_id = ?", (diff_id,))
            if row is None:
                return None
            self.leases.hold(tx, lease, diff_id)
        lease.diff_ids.add(diff_id)
        return _layer(row)

    @staticmethod
    def set_root(tx: Transaction, holder: str, diff_ids: Sequence[str], originals: Sequence[str] = ()) -> None:
        """Within a transaction: `holder` keeps these layers, and compressed forms of them, alive from now on."""
        tx.run(
            "INSERT OR REPLACE INTO layer_roots (holder, diff_ids, originals) VALUES (?, ?, ?)",
            (holder, " ".join(diff_ids), " ".join(originals)),
        )

    @staticmethod
    def drop_root(tx: Transaction, holder: str) -> None:
        tx.run("DELETE FROM layer_roots WHERE holder = ?", (holder,))

    def holders(self) -> list[tuple[str, frozenset[str]]]:
        """What holds layers, and which: layer roots by their names, snapshots as `snapshot:<id>`; no leases."""
        rows = self.db.all(
            "SELECT holder, diff_ids FROM layer_roots"
            " UNION ALL SELECT 'snapshot:' || snapshot_id AS holder, diff_ids FROM snapshots"
        )
        return [(row["holder"], frozenset(row["diff_ids"].split())) for row in rows]

    @names_its_disk
    def collect(self) -> list[Layer]:
        """Removes every layer that nothing refers to; returns them. The space comes back with `empty_trash`."""
        with self._lock:
            with self.db.transaction(frees=True) as tx:
                # Read in the transaction that deletes: a new root or lease comes before or after, never between.
                leased = self.leases.held(tx)
                held: set[str] = set()
                kept_originals = set(leased)
                for row in tx.all("SELECT diff_ids, originals FROM layer_roots"):
                    held.update(row["diff_ids"].split())
                    kept_originals.update(row["originals"].split())
                for row in tx.all("SELECT diff_ids FROM snapshots"):
                    held.update(row["diff_ids"].split())
                every = [_layer(row) for row in tx.all("SELECT * FROM layers")]
                # Whose image went while somebody worked on it: the end of the lease collects again.
                self.only_leased = frozenset(one.diff_id for one in every if one.diff_id in leased - held)
                held |= leased
                held |= self.packing.kept(tx, held)
                garbage = [layer for layer in every if layer.diff_id not in held]
                tx.run_many("DELETE FROM layers WHERE diff_id = ?", [(layer.diff_id,) for layer in garbage])
                tx.run_many("DELETE FROM damage WHERE subject = ?", [(layer.diff_id,) for layer in garbage])
                self.packing.drop(tx, {layer.diff_id for layer in garbage})
                kept = [layer.diff_id for layer in every if layer.diff_id in held]
                originals = self.originals.collect(tx, kept, kept_originals)
                faults.point("storage.layer.collect")
            for layer in garbage:
                self._throw(self._directory(layer.diff_id))
            try:
                self.originals.discard(originals)
            except OSError:
                self._untidy = True
        return garbage

    @names_its_disk
    def empty_trash(self) -> int:
        """Deletes what has been thrown away; slow, for a background thread."""
        if self._untidy:
            self._untidy = False
            for _, throw in self.leftovers():
                throw()
            for name in self.originals.strangers():
                self.originals.remove_stranger(name)
        removed = self.trash.empty()
        self.db.refill_reserve()
        return removed

    @names_its_disk
    def tidy(self) -> Tidied:
        """Packs older versions of files, gives back what packs no longer need; slow, for a background thread."""
        bases = list(self.packing.only_bases)
        if sum(self.packing.unpack_over(diff_id) for diff_id in bases):
            self.collect()
            self.trash.empty()
        return tidy(self.packing)

    def repair(self) -> list[str]:
        """Brings directories and rows together after a crash; returns a line for each thing it changed."""
        changed = []
        with self._lock:
            for staging in self._staging.iterdir():
                if staging.name in self._under_way:
                    continue
                place = self._layers / staging.name.partition(".")[0]
                if "." in staging.name and not place.exists():
                    staging.rename(place)  # was to be replaced, when the engine was killed
                    changed.append(f"put layer {place.name} back")
                    continue
                self.trash.throw(staging)
                changed.append(f"removed unfinished {staging.name}")
            known = {row["diff_id"][7:] for row in self.db.all("SELECT diff_id FROM layers")}
            present = {entry.name for entry in os.scandir(self._layers)}
            for name in sorted(present - known):
                self.trash.throw(self._layers / name)
                changed.append(f"removed unrecorded layer {name}")
            for name in sorted(known - present):
                with self.db.transaction() as tx:
                    tx.run("DELETE FROM layers WHERE diff_id = ?", (f"sha256:{name}",))
                    self.packing.drop(tx, {f"sha256:{name}"})
                changed.append(f"forgot lost layer {name}")
            with self.db.transaction(durable=False) as tx:
                self.leases.held(tx)  # forgets those of the dead
            changed += self.originals.repair()
        return changed + self.packing.repair()


def _layer(row: object) -> Layer:
    return msgspec.convert(dict(row), Layer, strict=False)  # type: ignore[call-overload]
