"""All volumes of one engine: records in the database, a directory each.

    <root>/<name>/_data            what containers see
    <root>/<name>/.filling-*       the image's files on their way (copy_up.py); .filled: complete, to be moved to _data
    <root>/.trash/                 removed volumes, until they are deleted
    <root>/.removed/<id>/          removed volumes that can be taken back; who removed them keeps their records

    volumes(name TEXT PRIMARY KEY, record BLOB, pending TEXT)    record: JSON of tare.volumes.records.Volume

pending is the id of a container that is being made with the volume, or removed with it: if that container isn't stored
after a crash, an anonymous volume goes too. A volume's row is written before its directory and deleted before it:
`repair` makes what is missing and throws away what nobody knows, so that a crash leaves no half volume. One that is put
aside is moved when its row is gone, and back before there is a row: a directory without a row belongs to who waits.

Must never follow a link inside a volume, nor make a path of a name that wasn't checked.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tare import faults
from tare.errors import Conflict, InvalidArgument, NotFound, TareError, system_text
from tare.storage.database import Database, Transaction
from tare.storage.durable import sync_directory
from tare.storage.merged import Stack
from tare.storage.quotas import Quotas, missing
from tare.storage.trash import Trash
from tare.storage.tree_reader import open_directory
from tare.storage.usage import usage
from tare.values.ids import is_id, new_id
from tare.values.timestamps import now_ns
from tare.volumes import copy_up, shared
from tare.volumes.records import ANONYMOUS_LABEL, LOCAL_DRIVER, LocalMount, Volume
from tare.volumes.rules import check_driver, check_name, parse_local_options, parse_size

_SCHEMA = [
    "CREATE TABLE volumes (name TEXT PRIMARY KEY, record BLOB NOT NULL, pending TEXT NOT NULL DEFAULT '')",
]
Along = Callable[[Transaction], None]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Volume).decode


class Volumes:
    """Every method but `usage` and `empty_trash` (for threads) is quick and belongs on one thread."""

    def __init__(self, root: Path | str, database: Database) -> None:
        self.root = Path(root)
        self._database = database
        self.root.mkdir(mode=0o701, parents=True, exist_ok=True)
        self.quotas = Quotas(self.root, database)
        self._trash = Trash(self.root / ".trash")
        self._removed = self.root / ".removed"
        self._removed.mkdir(mode=0o700, exist_ok=True)
        database.migrate("volumes", _SCHEMA)
        rows = database.all("SELECT record FROM volumes ORDER BY rowid")
        self._by_name = {volume.name: volume for volume in (_decode(row["record"]) for row in rows)}
        self._held: Counter[str] = Counter()
        self._owed: dict[str, str] = {}
        """Names of removed volumes whose files are still where they were, with the ids under which they should wait."""

    def __iter__(self) -> Iterator[Volume]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Volume | None:
        """The volume of that name."""
        return self._by_name.get(name)

    def find(self, name: str) -> Volume:
        """The volume of that name. Raises NotFound with Docker's text."""
        volume = self._by_name.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def directory(self, name: str) -> Path:
        """What belongs to a volume, its content apart."""
        return self.root / check_name(name)

    def mountpoint(self, name: str) -> Path:
        """Where a volume's content is (of one that its options mount: where Docker would mount it)."""
        return self.directory(name) / "_data"

    def create(
        self,
        name: str,
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        pending: str = "",
        durable: bool = True,
    ) -> tuple[Volume, bool]:
        """A new volume, or the one that there is, whatever its options and labels (as Docker); says whether it is new.

        An empty name has the engine choose one. Raises InvalidArgument, NotFound (no such driver).
        """
        if not name:
            name = new_id()
            labels = {**(labels or {}), ANONYMOUS_LABEL: ""}
        else:
            check_name(name)
        check_driver(name, driver)
        existing = self._by_name.get(name)
        if existing is not None:
            return existing, False
        volume = Volume(
            name=name,
            created_ns=now_ns(),
            driver=driver or LOCAL_DRIVER,
            options=None if options is None else dict(options),
            labels=None if labels is None else dict(labels),
            mount=parse_local_options(name, options),
        )
        size_bytes = parse_size(name, options)
        if size_bytes and not self.quotas.is_enforced():
            raise InvalidArgument(f"create {name}: quota size requested but no quota support: {missing(self.root)}")
        self._put_owed_aside(name)
        with self._database.transaction(durable=durable) as tx:
            if size_bytes:
                volume = msgspec.structs.replace(volume, project_id=self.quotas.claim(tx, size_bytes))
            # A full disk may have kept a row of a creation that failed from being taken back.
            row = (name, _encode(volume), pending)
            tx.run("INSERT OR REPLACE INTO volumes (name, record, pending) VALUES (?, ?, ?)", row)
        try:
            faults.point("volumes.create.row")
            self._trash.throw(self.directory(name))  # what a removal that failed half-way left must not come back
            self._make_directory(name)
            self._hold(volume)
            if durable:
                sync_directory(self.directory(name))
                sync_directory(self.root)
            faults.point("volumes.create.directory")
        except BaseException:
            self._release(volume)
            self._forget(name, durable=durable, along=lambda tx: self.quotas.forget(tx, volume.project_id))
            self._trash.throw(self.directory(name))
            raise
        self._by_name[name] = volume
        return volume, True

    def _make_directory(self, name: str) -> None:
        """As Docker's: anybody may pass, only root may look (a process with its user ids shifted must get through)."""
        directory = self.directory(name)
        for path, mode in ((directory, 0o701), (directory / "_data", 0o755)):
            try:
                path.mkdir()
            except FileExistsError:
                continue
            path.chmod(mode)  # whatever the umask
            faults.point("volumes.create.mkdir")

    def _hold(self, volume: Volume) -> None:
        """Sees to it that a volume's limit is kept, if it has one."""
        if volume.project_id:
            # The directory, too: a copy-up is made beside _data, and renamed.
            directory = self.directory(volume.name)
            self.quotas.hold(volume.project_id, (directory, directory / "_data"))

    def _release(self, volume: Volume) -> None:
        self.quotas.release(volume.project_id)

    def check_limit(self, name: str) -> None:
        """Before a volume is mounted. Raises Unsupported if it has a limit that can't be kept any more."""
        self._hold(self.find(name))

    def settle(self, container_id: str) -> None:
        """The container that volumes were waiting for is stored."""
        with self._database.transaction(durable=False) as tx:
            tx.run("UPDATE volumes SET pending = '' WHERE pending = ?", (container_id,))

    def mark(self, names: Iterable[str], container_id: str) -> None:
        """These volumes are to go with that container: they do, too, if the engine dies before it comes to it."""
        with self._database.transaction(durable=False) as tx:
            tx.run_many("UPDATE volumes SET pending = ? WHERE name = ?", [(container_id, name) for name in names])

    @contextmanager
    def held(self, names: Iterable[str]) -> Iterator[None]:
        """Keeps volumes from being removed while a container is being made that no record shows yet."""
        names = tuple(names)
        self._held.update(names)
        try:
            yield
        finally:
            self._held.subtract(names)
            self._held += Counter()  # drops what is zero

    def is_held(self, name: str) -> bool:
        """Whether a container is being made with it."""
        return self._held[name] > 0

    def remove(self, name: str, users: Collection[str] = (), *, aside: str = "", along: Along | None = None) -> Volume:
        """Removes a volume that no container uses. Raises NotFound, Conflict with Docker's text.

        aside: the id under which its files wait for `take_back`. along: done in the transaction that forgets it.
        """
        volume = self.find(name)
        if users or self.is_held(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        if volume.mount is not None:
            shared.unmount(self.mountpoint(name))
        faults.point("volumes.remove.begin")
        if not aside:
            self._release(volume)
            along = self._with_limit(volume, along)
        self._forget(name, along=along)
        if aside:
            self._owed[name] = aside
        faults.point("volumes.remove.row")
        if aside:
            self._put_owed_aside(name)
        else:
            self._trash.throw(self.directory(name))
        faults.point("volumes.remove.directory")
        return volume

    def _with_limit(self, volume: Volume, along: Along | None) -> Along:
        def both(tx: Transaction) -> None:
            self.quotas.forget(tx, volume.project_id)
            if along is not None:
                along(tx)

        return both

    def finish_removal(self, name: str, waiting: Mapping[str, str]) -> None:
        """Takes away what a removal left that failed when the volume was forgotten. waiting: see `repair`."""
        if name not in self._by_name:
            self._repair_aside(waiting)
            self._owed.pop(name, None)
            self._trash.throw(self.directory(name))

    def _forget(self, name: str, *, durable: bool = True, along: Along | None = None) -> None:
        with self._database.transaction(durable=durable, frees=True) as tx:
            tx.run("DELETE FROM volumes WHERE name = ?", (name,))
            if along is not None:
                along(tx)
        self._by_name.pop(name, None)

    def _put_aside(self, name: str, aside: str) -> None:
        with suppress(FileNotFoundError):
            self.directory(name).rename(self.aside(aside))

    def _put_owed_aside(self, name: str) -> None:
        """Where a removal failed before it came to it: nothing else may happen at that place earlier."""
        if name in self._owed:
            self._put_aside(name, self._owed[name])
            del self._owed[name]

    def aside(self, entry_id: str) -> Path:
        """Where a removed volume's files wait. Raises InvalidArgument for what is no id."""
        if not is_id(entry_id):
            raise InvalidArgument(f"invalid id: {entry_id}")
        return self._removed / entry_id

    def take_back(self, entry_id: str, volume: Volume, along: Along) -> None:
        """Brings back what was put aside, as `volume`. along: done in the transaction that records it.

        Raises Conflict if there is a volume of that name.
        """
        if volume.name in self._by_name:
            raise Conflict(f"volume name {volume.name} is in use")
        for name in [name for name, owed in self._owed.items() if owed == entry_id or name == volume.name]:
            self._put_owed_aside(name)
        waiting, place = self.aside(entry_id), self.directory(volume.name)
        self._trash.throw(place)
        with suppress(FileNotFoundError):
            waiting.rename(place)
        faults.point("volumes.restore.moved")
        try:
            self._make_directory(volume.name)
            self._hold(volume)
            sync_directory(self.root)
            sync_directory(self._removed)
            with self._database.transaction() as tx:
                tx.run("INSERT INTO volumes (name, record) VALUES (?, ?)", (volume.name, _encode(volume)))
                along(tx)
        except BaseException:
            self._put_aside(volume.name, entry_id)
            raise
        faults.point("volumes.restore.row")
        self._by_name[volume.name] = volume

    def begin_drop(self, tx: Transaction, volume: Volume) -> None:
        """Within the transaction that forgets who waits: nothing is to be limited any more. Then `drop_aside`."""
        self._release(volume)
        self.quotas.forget(tx, volume.project_id)

    def drop_aside(self, entry_id: str) -> None:
        """Throws away what was put aside; `empty_trash` gives the space back."""
        self._trash.throw(self.aside(entry_id))

    def fill(self, name: str, stack: Stack, place: str) -> bool:
        """Copy-up of what the image has at `place` into a volume that is empty. Slow, for a thread; see copy_up.py.

        One that lives in memory has nothing to keep it in before it is mounted. Raises InvalidArgument.
        """
        volume, directory = self.find(name), self.directory(name)
        if volume.mount is None:
            copy_up.resume(directory, self._trash)
            return copy_up.is_empty(directory / "_data") and copy_up.fill(stack, place, directory, self._trash)
        if volume.mount.in_memory:
            return False
        target_fd = _open_device(directory / "_data", volume.mount)
        try:
            return copy_up.fill_foreign(stack, place, target_fd, directory)
        finally:
            os.close(target_fd)

    def usage(self, name: str) -> int:
        """Bytes of the files in a volume, as Docker counts them; nothing of what its options mount."""
        volume = self.find(name)
        if volume.mount is not None:
            return 0
        try:
            return usage(self.mountpoint(name))
        except FileNotFoundError:
            return 0  # removed meanwhile

    def usage_aside(self, entry_id: str) -> int:
        """Bytes of the files of a volume that was put aside."""
        try:
            return usage(self.aside(entry_id))
        except FileNotFoundError:
            return 0

    def unmount_unused(self, names: Iterable[str], mounted: Collection[str]) -> None:
        """Takes away what no running container has any more. mounted: the volumes that running ones have."""
        for name in names:
            volume = self._by_name.get(name)
            if volume is None or volume.mount is None or volume.mount.is_bind:
                continue
            if name not in mounted and not self.is_held(name):
                shared.unmount(self.mountpoint(name))

    def empty_trash(self) -> int:
        """Deletes what was removed; slow, for a thread."""
        return self._trash.empty()

    def repair(
        self,
        stored: Callable[[str], bool],
        used: Collection[str],
        *,
        waiting: Mapping[str, str] = {},
        discard: Callable[[str, str], object] | None = None,
    ) -> list[str]:
        """Brings rows and directories together after a crash; returns a line for each thing it changed.

        stored: whether a container of that id is. used: names of the volumes that containers have. waiting: the names
        of those that were put aside, by id. discard: removes a volume by its name that was to go with a container's id.
        """
        changed = self._repair_aside(waiting)
        for row in self._database.all("SELECT name, pending FROM volumes WHERE pending != ''"):
            name, container_id = row["name"], row["pending"]
            if not stored(container_id) and name not in used and self._by_name[name].anonymous:
                discard(name, container_id) if discard else self.remove(name)
                changed.append(f"removed volume {name} of a container that isn't there")
            elif not stored(container_id):
                self.mark((name,), "")
            else:
                self.settle(container_id)
        for entry in list(os.scandir(self.root)):
            if not entry.name.startswith(".") and entry.name not in self._by_name:
                shared.unmount(Path(entry.path) / "_data")
                self._trash.throw(Path(entry.path))
                changed.append(f"removed unrecorded volume {entry.name}")
        for name in self._by_name:
            self._make_directory(name)
            changed += self._repair_limit(self._by_name[name])
            with suppress(OSError):  # a full disk: its next use goes on, or says so
                copy_up.resume(self.directory(name), self._trash)
        return changed

    def _repair_limit(self, volume: Volume) -> list[str]:
        """What can't be limited any more is told, and not mounted (`check_limit`)."""
        try:
            self._hold(volume)
        except (TareError, OSError) as error:
            return [f"volume {volume.name} is not limited: {error}"]
        return []

    def _repair_aside(self, waiting: Mapping[str, str]) -> list[str]:
        changed = []
        for entry_id, name in waiting.items():
            if name not in self._by_name and not self.aside(entry_id).exists() and self.directory(name).exists():
                shared.unmount(self.mountpoint(name))
                self._put_aside(name, entry_id)
                changed.append(f"put removed volume {name} aside")
        for entry in list(os.scandir(self._removed)):
            if entry.name not in waiting:
                self._trash.throw(Path(entry.path))
                changed.append(f"dropped removed volume {entry.name}")
        return changed


def _open_device(path: Path, wanted: LocalMount) -> int:
    """The root directory of what a volume's options mount; where it isn't, for a moment and nowhere attached."""
    if not wanted.is_bind and shared.is_mounted(path):
        return open_directory(path)
    if not wanted.is_bind:
        tree_fd = shared.make(path, wanted)
        try:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree_fd)
        finally:
            os.close(tree_fd)
    try:
        return os.open(wanted.device, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(
            f"failed to mount local volume: mount {wanted.device}:{path}: {system_text(error.errno or 0).lower()}"
        ) from error
