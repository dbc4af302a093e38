"""Layers: the trees of tar archives, each in one place by its diff ID, kept while anything refers to it.

Must never show a layer that isn't whole, nor delete one that a root row or a lease holds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tare import errors, faults
from tare.storage import durable, schema
from tare.storage.database import Database, Transaction
from tare.storage.decompress import Readable
from tare.storage.digests import checked_hex
from tare.storage.extract import Extracted, extract
from tare.storage.limits import DEFAULT_LIMITS, Limits
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


class Lease:
    """Keeps layers alive until something durable refers to them; ends with its `with` block or the process."""

    def __init__(self) -> None:
        self.diff_ids: set[str] = set()


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
        self._lock = threading.Lock()
        self._leases: set[Lease] = set()
        self._under_way: set[str] = set()
        self.repair()

    # -- making -------------------------------------------------------------------------------------------------

    def add(self, stream: Readable, limits: Limits = DEFAULT_LIMITS, *, lease: Lease | None = None) -> Layer:
        """Stores an archive (plain, gzip, bzip2, xz or zstd) as a layer. On disk and recorded when it returns.

        With a lease the layer can't be collected before the lease ends. Raises InvalidArgument for a bad archive.
        """
        with self.staged() as staging:
            fds = [open_directory(staging / TREE), open_directory(staging / SHADOW)]
            try:
                extracted = extract(stream, fds[0], fds[1], self.new_recipe(staging), limits)
            finally:
                for descriptor in fds:
                    os.close(descriptor)
            return self.publish(staging, extracted, lease=lease)

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
            if self.trash.throw(staging):
                self.trash.empty()
            with self._lock:
                self._under_way.discard(staging.name)

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
            present = self._row(layer.diff_id)
            if present is None:
                self._place(staging, layer)
            if lease is not None:
                lease.diff_ids.add(layer.diff_id)
        return present or layer

    def _place(self, staging: Path, layer: Layer) -> None:
        place = self._directory(layer.diff_id)
        self.trash.throw(place)  # left by a crash between rename and row
        faults.point("storage.layer.rename")
        staging.rename(place)
        faults.point("storage.layer.row")
        durable.sync_directory(self._layers)
        with self.db.transaction() as tx:
            tx.run(
                "INSERT INTO layers (diff_id, size_bytes, tar_bytes, root_entry, opaque_root, created_ns)"
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
        faults.point("storage.layer.added")

    # -- looking ------------------------------------------------------------------------------------------------

    def get(self, diff_id: str) -> Layer:
        layer = self._row(diff_id)
        if layer is None:
            raise errors.NotFound(f"layer {diff_id}: not found")
        return layer

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
    def lease(self, diff_ids: Sequence[str] = ()) -> Iterator[Lease]:
        """A lease on the named layers (NotFound if one is gone) and on those added with it."""
        lease = Lease()
        with self._lock:
            for diff_id in diff_ids:
                self.get(diff_id)
                lease.diff_ids.add(diff_id)
            self._leases.add(lease)
        try:
            yield lease
        finally:
            with self._lock:
                self._leases.discard(lease)

    def hold(self, diff_id: str, lease: Lease) -> Layer | None:
        """The layer, held by the lease from now on; None if it isn't there."""
        return self._hold(diff_id, lease)

    def _hold(self, diff_id: str, lease: Lease | None) -> Layer | None:
        with self._lock:
            present = self._row(diff_id)
            if present is not None and lease is not None:
                lease.diff_ids.add(diff_id)
            return present

    @staticmethod
    def set_root(tx: Transaction, holder: str, diff_ids: Sequence[str]) -> None:
        """Within a transaction: `holder` keeps these layers alive from now on."""
        tx.run("INSERT OR REPLACE INTO layer_roots (holder, diff_ids) VALUES (?, ?)", (holder, " ".join(diff_ids)))

    @staticmethod
    def drop_root(tx: Transaction, holder: str) -> None:
        tx.run("DELETE FROM layer_roots WHERE holder = ?", (holder,))

    def collect(self) -> list[Layer]:
        """Removes every layer that nothing refers to; returns them. The space comes back with `empty_trash`."""
        with self._lock:
            held = {diff_id for lease in self._leases for diff_id in lease.diff_ids}
            with self.db.transaction() as tx:
                # Roots are read in the transaction that deletes: a new root row comes before or after, never between.
                for row in tx.all("SELECT diff_ids FROM layer_roots UNION ALL SELECT diff_ids FROM snapshots"):
                    held.update(row["diff_ids"].split())
                garbage = [_layer(row) for row in tx.all("SELECT * FROM layers") if row["diff_id"] not in held]
                tx.run_many("DELETE FROM layers WHERE diff_id = ?", [(layer.diff_id,) for layer in garbage])
                faults.point("storage.layer.collect")
            for layer in garbage:
                self.trash.throw(self._directory(layer.diff_id))
        return garbage

    def empty_trash(self) -> int:
        """Deletes what has been thrown away; slow, for a background thread."""
        return self.trash.empty()

    def repair(self) -> list[str]:
        """Brings directories and rows together after a crash; returns a line for each thing it changed."""
        changed = []
        with self._lock:
            for staging in self._staging.iterdir():
                if staging.name in self._under_way:
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
                changed.append(f"forgot lost layer {name}")
        return changed


def _layer(row: object) -> Layer:
    return msgspec.convert(dict(row), Layer, strict=False)  # type: ignore[call-overload]
