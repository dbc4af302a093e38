"""Snapshots: a writable directory over a stack of layers, one per container.

Must never mount anything, and never let a path out of a container be walked as a string.

Below the image's layers lies the skeleton: empty mount points and files that every container's mounts need (what
Docker's "init layer" has). There it serves an image that lacks them, hides nothing, and is never part of a commit.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from tare import errors, faults
from tare.storage.changes import Change, changes
from tare.storage.commit import commit_tree, squash_trees
from tare.storage.damage import check_undamaged
from tare.storage.database import Database, Transaction
from tare.storage.durable import make_private_directory, sync_directory
from tare.storage.export import Write, export_stack
from tare.storage.full_disk import names_its_disk
from tare.storage.layers import Layer, Layers, Lease
from tare.storage.merged import Stack
from tare.storage.quotas import Quotas
from tare.storage.spares import Spares, make_directories
from tare.storage.trash import Trash
from tare.storage.usage import usage
from tare.values.mount import OverlayRoot

_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}\Z")
_SKELETON_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
_SKELETON_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
_SKELETON_LINKS = (("etc/mtab", "/proc/mounts"),)


class _Stacked(msgspec.Struct, frozen=True):
    """What `prepare` needs to know of a stack of layers."""

    lower: tuple[str, ...]
    mode: int
    uid: int
    gid: int


class Snapshots:
    """All snapshots below one root. Every method may be called from any thread."""

    def __init__(self, root: Path | str, layers: Layers, db: Database) -> None:
        self.root = Path(root)
        self.layers = layers
        self.db = db
        layers.packing.upper = self.upper
        make_private_directory(self.root)
        self.quotas = Quotas(self.root, db)
        self.trash = Trash(self.root / ".trash")
        self.skeleton = self.root / ".skeleton"
        self.nothing = self.root / ".nothing"
        self._make_skeleton()
        self._stacked = lru_cache(256)(self._stack)
        self._unfinished: set[str] = set()
        self._unremoved: set[str] = set()  # failed to be made, and on a full disk to be removed again
        self._spares = Spares(self.root / ".spare", self.trash)
        self.repair()
        self._spares.refill()

    # -- making and removing ---------------------------------------------------------------------------------------

    @names_its_disk
    def prepare(
        self,
        snapshot_id: str,
        diff_ids: Sequence[str],
        *,
        volatile: bool = False,
        durable: bool = False,
        size_bytes: int = 0,
    ) -> OverlayRoot:
        """Makes a snapshot over the layers, bottom first. Conflict if the id is taken, NotFound if a layer is gone.

        Nothing is synced unless durable: the engine's own durable transaction that follows takes the row along.
        size_bytes: what its own files may take; 0: no limit. Raises Unsupported where the file system has none.
        """
        if size_bytes:
            self.quotas.check()
        directory = self._directory(snapshot_id)
        stacked = self._stacked(tuple(diff_ids))
        with self.db.transaction(durable=durable) as tx:
            _check_present(tx, diff_ids)
            project_id = self.quotas.claim(tx, size_bytes) if size_bytes else 0
            try:
                tx.run(
                    "INSERT INTO snapshots (snapshot_id, diff_ids, volatile, project_id) VALUES (?, ?, ?, ?)",
                    (snapshot_id, " ".join(diff_ids), volatile, project_id),
                )
            except sqlite3.IntegrityError:
                raise errors.Conflict(f"snapshot {snapshot_id} already exists") from None
        try:
            faults.point("storage.snapshot.row")
            self._make_plain(diff_ids)
            self._make(directory, stacked)
            if project_id:
                self._hold(snapshot_id)
        except BaseException:
            self._undo(snapshot_id)
            raise
        if durable:
            sync_directory(directory)
            sync_directory(self.root)
        return self._overlay(directory, stacked, volatile, project_id)

    @names_its_disk
    def adopt(self, snapshot_id: str, diff_ids: Sequence[str], upper: Path, *, size_bytes: int = 0) -> None:
        """The same with an upper directory that is there, whole and on the disk; it is renamed into its place."""
        self.prepare(snapshot_id, diff_ids, durable=True, size_bytes=size_bytes)
        place = self.upper(snapshot_id)
        self.trash.throw(place)
        faults.point("storage.snapshot.adopt")
        upper.rename(place)
        sync_directory(place.parent)
        self._hold(snapshot_id, anew=True)

    def give_back(self, snapshot_id: str, upper: Path) -> None:
        """Undoes `adopt`, however far it came."""
        if not upper.exists() and self.exists(snapshot_id):
            self.upper(snapshot_id).rename(upper)
        self.remove(snapshot_id)

    def _undo(self, snapshot_id: str) -> None:
        try:
            self.remove(snapshot_id)
        except (errors.ResourceExhausted, OSError):
            self._unremoved.add(snapshot_id)

    def _make(self, directory: Path, stacked: _Stacked) -> None:
        path = str(directory)
        if not self._spares.take(path):
            make_directories(path)
        faults.point("storage.snapshot.directories")
        upper = path + "/upper"
        # The merged root shows the upper directory's own owner and mode.
        if stacked.uid or stacked.gid:
            os.chown(upper, stacked.uid, stacked.gid)
        os.chmod(upper, stacked.mode)

    def _hold(self, snapshot_id: str, *, anew: bool = False) -> None:
        """Sees to it that a snapshot's limit is kept, if it has one. Raises Unsupported."""
        if project_id := self._project(snapshot_id):
            self.quotas.hold(project_id, _limited(self._directory(snapshot_id)), anew=anew)

    def _project(self, snapshot_id: str) -> int:
        row = self.db.one("SELECT project_id FROM snapshots WHERE snapshot_id = ?", (snapshot_id,))
        return int(row["project_id"]) if row is not None else 0

    def begin_limit(self, tx: Transaction, snapshot_id: str, size_bytes: int) -> None:
        """Within a transaction: what its own files may take from now on, 0 for no limit; then `finish_limit`."""
        project_id = self._project(snapshot_id)
        if project_id:
            self.quotas.resize(tx, project_id, size_bytes)
        elif size_bytes:
            project_id = self.quotas.claim(tx, size_bytes)
            tx.run("UPDATE snapshots SET project_id = ? WHERE snapshot_id = ?", (project_id, snapshot_id))

    def finish_limit(self, snapshot_id: str) -> int:
        """Has the kernel keep it; returns the bytes that are taken already. Safe to repeat, slow the first time."""
        self._hold(snapshot_id)
        project_id = self._project(snapshot_id)
        return self.quotas.usage(project_id) if project_id else 0

    def limit(self, snapshot_id: str) -> int:
        """The bytes that its own files may take; 0: no limit."""
        project_id = self._project(snapshot_id)
        return self.quotas.size(project_id) if project_id else 0

    def _make_plain(self, diff_ids: Sequence[str]) -> None:
        """What the stack shows must be in its layers' files. The snapshot's row keeps it there from now on."""
        if self.layers.packing.concerns(diff_ids):
            self.layers.packing.unpack_for(diff_ids)

    def root_filesystem(self, snapshot_id: str) -> OverlayRoot:
        """The same as `prepare` gave, ready to be mounted again."""
        diff_ids, volatile = self._row(snapshot_id)
        directory = self._directory(snapshot_id)
        if volatile:
            # A volatile mount leaves this behind and the next mount is refused (overlayfs.rst, "Volatile mount").
            self.trash.throw(directory / "work" / "work" / "incompat")
        return self._overlay(directory, self._stacked(diff_ids), volatile, self._project(snapshot_id))

    def begin_reset(self, tx: Transaction, snapshot_id: str, diff_ids: Sequence[str]) -> None:
        """Within a transaction: the snapshot goes over to other layers and loses its own changes; then `finish_reset`.

        A crash between the two is made good by `repair`. Raises NotFound if a layer is gone.
        """
        self._unfinished.add(snapshot_id)
        _check_present(tx, diff_ids)
        if project_id := self._project(snapshot_id):
            # Another project: what is thrown away counts for the old one until it is deleted.
            new_id = self.quotas.claim(tx, self.quotas.size(project_id))
            tx.run("UPDATE snapshots SET project_id = ? WHERE snapshot_id = ?", (new_id, snapshot_id))
            self.quotas.release(project_id)
            self.quotas.forget(tx, project_id)
        tx.run("UPDATE snapshots SET diff_ids = ?, fresh = 1 WHERE snapshot_id = ?", (" ".join(diff_ids), snapshot_id))

    @names_its_disk
    def finish_reset(self, snapshot_id: str) -> None:
        """Replaces the directories of a snapshot that isn't mounted by empty ones. Safe to repeat."""
        self._empty(snapshot_id)
        self._hold(snapshot_id)

    def _empty(self, snapshot_id: str) -> None:
        diff_ids, _ = self._row(snapshot_id)
        directory = self._directory(snapshot_id)
        faults.point("storage.snapshot.reset")
        self._make_plain(diff_ids)
        self.trash.throw(directory)
        self._make(directory, self._stacked(diff_ids))
        sync_directory(self.root)
        with self.db.transaction() as tx:
            tx.run("UPDATE snapshots SET fresh = 0 WHERE snapshot_id = ?", (snapshot_id,))
        self._unfinished.discard(snapshot_id)

    def settle(self, snapshot_id: str) -> None:
        """Before a snapshot is mounted: finishes a reset that failed half-way, and lifts the mark of a volatile mount.

        The kernel refuses to mount again what was mounted so (overlayfs.rst, "Volatile mount"), since it can't know
        whether the machine crashed meanwhile; such a snapshot was thrown away then.
        """
        shutil.rmtree(self._directory(snapshot_id) / "work" / "work" / "incompat", ignore_errors=True)
        if self.layers.packing.in_use:
            self.unpack(snapshot_id)  # if it came back from being parked, and that failed half-way
        if snapshot_id in self._unfinished:
            row = self.db.one("SELECT fresh FROM snapshots WHERE snapshot_id = ?", (snapshot_id,))
            if row is not None and row["fresh"]:
                self.finish_reset(snapshot_id)
            self._unfinished.discard(snapshot_id)
        self._hold(snapshot_id)

    def park(self, tx: Transaction, snapshot_id: str, older: Sequence[str]) -> None:
        """Within a transaction: it isn't mounted until `unpark`, so its large files, and what it shows, may be packed.

        older: layers that may have them, too, the likeliest first.
        """
        self.layers.packing.park(tx, snapshot_id, older)

    def unpark(self, tx: Transaction, snapshot_id: str) -> None:
        """Within a transaction: it will be mounted again. `unpack` comes next."""
        self.layers.packing.unpark(tx, snapshot_id)

    @names_its_disk
    def unpack(self, snapshot_id: str) -> None:
        """Makes plain what was packed while it was parked; slow. Raises ResourceExhausted, Internal (damaged)."""
        self.layers.packing.unpack_snapshot(snapshot_id, self.diff_ids(snapshot_id))

    @names_its_disk
    def remove(self, snapshot_id: str) -> None:
        """Forgets a snapshot and renames it away, if it is there. `empty_trash` gives the space back."""
        directory = self._directory(snapshot_id)
        project_id = self._project(snapshot_id)
        self.quotas.release(project_id)
        with self.db.transaction(durable=False, frees=True) as tx:
            tx.run("DELETE FROM snapshots WHERE snapshot_id = ?", (snapshot_id,))
            self.quotas.forget(tx, project_id)
            self.layers.packing.forget_snapshot(tx, snapshot_id)
        faults.point("storage.snapshot.remove")
        self.trash.throw(directory)

    @names_its_disk
    def empty_trash(self) -> int:
        """Deletes what was removed and makes directories for snapshots to come; slow, for a background thread."""
        for snapshot_id in list(self._unremoved):
            self.remove(snapshot_id)
            self._unremoved.discard(snapshot_id)
        removed = self.trash.empty()
        self._spares.refill()
        return removed

    def repair(self) -> list[str]:
        """Brings rows and directories together after a crash; returns a line for each thing it changed."""
        changed = []
        known = {row["snapshot_id"]: row for row in self.db.all("SELECT * FROM snapshots")}
        present = {entry.name for entry in os.scandir(self.root) if not entry.name.startswith(".")}
        for name in sorted(present - known.keys()):
            self.trash.throw(self.root / name)
            changed.append(f"removed unrecorded snapshot {name}")
        for name, row in sorted(known.items()):
            directory = self._directory(name)
            if row["fresh"]:
                self._empty(name)
                changed += self._repair_limit(name)
                changed.append(f"emptied snapshot {name} on its new layers")
                continue
            if (directory / "upper").is_dir() and (directory / "work").is_dir():
                changed += self._repair_limit(name)
                continue
            # Recorded, then cut off (or lost with the power) before its directories were on the disk.
            self.trash.throw(directory)
            self._make(directory, self._stacked(tuple(row["diff_ids"].split())))
            changed += self._repair_limit(name)
            changed.append(f"made the directories of snapshot {name} again")
        return changed

    def _repair_limit(self, snapshot_id: str) -> list[str]:
        """What can't be limited any more is told, and not mounted (`settle`)."""
        try:
            self._hold(snapshot_id)
        except (errors.TareError, OSError) as error:
            return [f"snapshot {snapshot_id} is not limited: {error}"]
        return []

    def strangers(self) -> list[str]:
        """Names of directories that no snapshot has."""
        names = {entry.name for entry in os.scandir(self.root) if not entry.name.startswith(".")}
        return sorted(name for name in names if not _ID.match(name) or not self.exists(name))

    def remove_stranger(self, name: str) -> bool:
        """Throws such a directory away, if it still is one. A row comes before its directory, so that none is hit."""
        return name in self.strangers() and self.trash.throw(self.root / name)

    def is_whole(self, snapshot_id: str) -> bool:
        """Whether a snapshot has its directories, or is gone."""
        directory = self._directory(snapshot_id)
        return not self.exists(snapshot_id) or ((directory / "upper").is_dir() and (directory / "work").is_dir())

    def make_again(self, snapshot_id: str) -> bool:
        """Makes directories that are missing, empty; an upper directory that is there stays."""
        diff_ids, _ = self._row(snapshot_id)
        directory = self._directory(snapshot_id)
        if (directory / "upper").is_dir():
            (directory / "work").mkdir(mode=0o700, exist_ok=True)
            return True
        self.trash.throw(directory)
        self._make(directory, self._stacked(diff_ids))
        self._hold(snapshot_id)
        return True

    # -- looking -----------------------------------------------------------------------------------------------------

    def exists(self, snapshot_id: str) -> bool:
        return self.db.one("SELECT 1 FROM snapshots WHERE snapshot_id = ?", (snapshot_id,)) is not None

    def ids(self) -> list[str]:
        return [row["snapshot_id"] for row in self.db.all("SELECT snapshot_id FROM snapshots ORDER BY 1")]

    def diff_ids(self, snapshot_id: str) -> tuple[str, ...]:
        return self._row(snapshot_id)[0]

    def upper(self, snapshot_id: str) -> Path:
        return self._directory(snapshot_id) / "upper"

    def changes(self, snapshot_id: str) -> list[Change]:
        """What differs from the image, as `docker diff` lists it; costs what the upper directory holds."""
        with self.stack(snapshot_id) as stack:
            return changes(stack)

    def commit(self, snapshot_id: str, *, lease: Lease | None = None) -> Layer:
        """The upper directory as a new layer. The caller pauses the container if it wants one instant."""
        upper = self.upper(snapshot_id)
        stacked = self._stacked(self.diff_ids(snapshot_id))
        status = upper.stat()
        changed = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != (
            stacked.mode,
            stacked.uid,
            stacked.gid,
        )
        with self.layers.staged() as staging:
            extracted = commit_tree(upper, staging, self.layers.new_recipe(staging), root_entry=changed)
            return self.layers.publish(staging, extracted, lease=lease)

    def squash(self, diff_ids: Sequence[str], *, lease: Lease) -> Layer:
        """Layers that lie on each other, bottom first, as one new layer; the lease holds them."""
        layers = [self.layers.get(diff_id) for diff_id in dict.fromkeys(reversed(diff_ids))]
        if any(layer.opaque_root for layer in layers):
            raise errors.Unsupported("a layer that hides all below it can't be squashed by Tare")
        root = next((number for number, layer in enumerate(layers) if layer.root_entry), None)
        with self.layers.staged() as staging, Stack([self.layers.path(layer.diff_id) for layer in layers]) as stack:
            recipe_fd = self.layers.new_recipe(staging)
            extracted = squash_trees(stack, staging, recipe_fd, root_layer=root)
            return self.layers.publish(staging, extracted, lease=lease)

    def export(self, snapshot_id: str, write: Write) -> None:
        """Writes the merged view as a tar, whether or not it is mounted."""
        with self.stack(snapshot_id) as stack:
            export_stack(stack, write)

    def export_layers(self, diff_ids: Sequence[str], write: Write) -> None:
        """Writes the merged view of layers alone, bottom first in diff_ids, as a tar."""
        with self.layers.lease(diff_ids, reads=True), Stack(self._layer_directories(tuple(diff_ids))) as stack:
            export_stack(stack, write)

    def view(self, snapshot_id: str) -> tuple[str, ...]:
        """The directories of its layers alone, topmost first, and an empty one: for overlayfs, which wants two."""
        diff_ids, _ = self._row(snapshot_id)
        return (*(self._layer_directories(diff_ids) or (str(self.nothing / "above"),)), str(self.nothing / "below"))

    def sizes(self, snapshot_id: str) -> tuple[int, int]:
        """(bytes of the files in the upper directory, those and all the layers' together)."""
        size_rw = usage(self.upper(snapshot_id))
        return size_rw, size_rw + sum(self.layers.get(diff_id).size_bytes for diff_id in self.diff_ids(snapshot_id))

    def stack(self, snapshot_id: str) -> Stack:
        """The open directories of a snapshot, upper first, skeleton last."""
        diff_ids, _ = self._row(snapshot_id)
        return Stack([self.upper(snapshot_id), *self._stacked(diff_ids).lower])

    def stack_of(self, diff_ids: Sequence[str]) -> Stack:
        """The same of layers alone, bottom first in diff_ids; a lease of the caller's holds them."""
        return Stack(self._stacked(tuple(diff_ids)).lower)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _directory(self, snapshot_id: str) -> Path:
        if not _ID.match(snapshot_id):
            raise errors.InvalidArgument(f"invalid snapshot id {snapshot_id[:100]!r}")
        return self.root / snapshot_id

    def _row(self, snapshot_id: str) -> tuple[tuple[str, ...], bool]:
        row = self.db.one("SELECT diff_ids, volatile FROM snapshots WHERE snapshot_id = ?", (snapshot_id,))
        if row is None:
            raise errors.NotFound(f"snapshot {snapshot_id}: not found")
        return tuple(row["diff_ids"].split()), bool(row["volatile"])

    def _layer_directories(self, diff_ids: tuple[str, ...]) -> list[str]:
        """Topmost first, down to the first layer that hides all below it.

        A layer that occurs twice counts where it is topmost: there it decides all that it would decide further down
        (and overlayfs refuses a directory that it has already).
        """
        directories = []
        for diff_id in dict.fromkeys(reversed(diff_ids)):
            directories.append(str(self.layers.path(diff_id)))
            if self.layers.get(diff_id).opaque_root:
                break
        return directories

    def _stack(self, diff_ids: tuple[str, ...]) -> _Stacked:
        status = None
        for diff_id in reversed(diff_ids):
            if self.layers.get(diff_id).root_entry:
                status = self.layers.path(diff_id).stat()
                break
        return _Stacked(
            lower=(*self._layer_directories(diff_ids), str(self.skeleton)),
            mode=stat.S_IMODE(status.st_mode) if status else 0o755,
            uid=status.st_uid if status else 0,
            gid=status.st_gid if status else 0,
        )

    def _overlay(self, directory: Path, stacked: _Stacked, volatile: bool, project_id: int) -> OverlayRoot:
        path = str(directory)
        size_bytes = self.quotas.size(project_id) if project_id else 0
        return OverlayRoot(stacked.lower, path + "/upper", path + "/work", volatile, project_id, size_bytes)

    def _make_skeleton(self) -> None:
        for name in ("above", "below"):
            (self.nothing / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        self.skeleton.mkdir(mode=0o755, exist_ok=True)
        self.skeleton.chmod(0o755)
        for name in _SKELETON_DIRECTORIES:
            (self.skeleton / name).mkdir(exist_ok=True)
            (self.skeleton / name).chmod(0o755)
        for name in _SKELETON_FILES:
            (self.skeleton / name).touch(mode=0o755, exist_ok=True)
            (self.skeleton / name).chmod(0o755)
        for name, target in _SKELETON_LINKS:
            if not (self.skeleton / name).is_symlink():
                (self.skeleton / name).symlink_to(target)


def _limited(directory: Path) -> tuple[Path, Path]:
    """Overlayfs makes files in the work directory, and renames them: both belong to one project, or it can't."""
    return directory / "work", directory / "upper"


def _check_present(tx: Transaction, diff_ids: Sequence[str]) -> None:
    """Within the transaction that refers to them, so that a collection comes before or after."""
    for diff_id in diff_ids:
        if tx.one("SELECT 1 FROM layers WHERE diff_id = ?", (diff_id,)) is None:
            raise errors.NotFound(f"layer {diff_id}: not found")
        check_undamaged(tx, diff_id)
