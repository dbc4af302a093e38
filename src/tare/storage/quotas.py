"""How many bytes trees of files may take: a project of the file system's for each, with an id that is never used twice.

Must never follow a link in a tree, nor believe that a limit is kept where the file system doesn't say so.

    projects                        one row per tree with a limit; the id's holder names it in a row of its own
      project_id   INTEGER PRIMARY KEY   never given again, even if the row is gone (AUTOINCREMENT)
      size_bytes   INTEGER               0: no limit any more
      whole        INTEGER               1: all that was in the tree when it got its limit belongs to the project

The rows say what is to be; `hold` makes the kernel agree, and is repeated after a crash.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tare import faults
from tare.errors import KernelError, NotFound, Unsupported
from tare.kernel import quotas as kernel
from tare.storage.database import Database, Transaction
from tare.storage.full_disk import disk_of
from tare.storage.merged import Stack
from tare.storage.tree_reader import open_beneath, open_directory

STEPS = (
    """
    CREATE TABLE projects (
        project_id INTEGER PRIMARY KEY AUTOINCREMENT,
        size_bytes INTEGER NOT NULL,
        whole INTEGER NOT NULL
    )
    """,
)
_FIRST, _SPREAD = 1 << 24, 1 << 30
"""Where an engine's ids begin: far from those of /etc/projid, at a place of its own (others may share the disk)."""


class Quotas:
    """The limits of trees below `root`, which is on one file system. Every method may be called from any thread."""

    def __init__(self, root: Path, db: Database) -> None:
        self.root = root
        self._db = db
        db.migrate("quotas", STEPS)

    # -- what there is -------------------------------------------------------------------------------------------------

    def is_enforced(self) -> bool:
        """Whether the file system can limit trees."""
        root_fd = open_directory(self.root)
        try:
            return kernel.is_enforced(root_fd)
        finally:
            os.close(root_fd)

    def check(self) -> None:
        """Raises Unsupported, with Docker's sentence and the remedy, where the file system can't limit trees."""
        if not self.is_enforced():
            raise Unsupported(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option, or ext4 with "
                f"'prjquota': {missing(self.root)}"
            )

    def size(self, project_id: int) -> int:
        """A tree's limit in bytes; 0: none."""
        row = self._db.one("SELECT size_bytes FROM projects WHERE project_id = ?", (project_id,))
        return int(row["size_bytes"]) if row is not None else 0

    def usage(self, project_id: int) -> int:
        """Bytes that a tree takes on the disk, as the file system counts them for its limit."""
        root_fd = open_directory(self.root)
        try:
            return kernel.usage(root_fd, project_id)[0]
        finally:
            os.close(root_fd)

    # -- what is to be -------------------------------------------------------------------------------------------------

    def claim(self, tx: Transaction, size_bytes: int) -> int:
        """Within the transaction that names it: the id of a new project. `hold` comes next."""
        root_fd = open_directory(self.root)
        try:
            if tx.one("SELECT 1 FROM sqlite_sequence WHERE name = 'projects'") is None:
                tx.run("INSERT INTO projects VALUES (?, 0, 0)", (_FIRST + secrets.randbelow(_SPREAD),))
                tx.run("DELETE FROM projects")
            while True:
                tx.run("INSERT INTO projects (size_bytes, whole) VALUES (?, 0)", (size_bytes,))
                row = tx.one("SELECT max(project_id) AS id FROM projects")
                project_id = int(row["id"]) if row is not None else 0
                if not any(kernel.usage(root_fd, project_id)):
                    return project_id
                tx.run("DELETE FROM projects WHERE project_id = ?", (project_id,))  # somebody else's
        finally:
            os.close(root_fd)

    @staticmethod
    def resize(tx: Transaction, project_id: int, size_bytes: int) -> None:
        """Another limit, 0 for none. `hold` comes next."""
        tx.run("UPDATE projects SET size_bytes = ? WHERE project_id = ?", (size_bytes, project_id))

    @staticmethod
    def forget(tx: Transaction, project_id: int) -> None:
        """Within the transaction that forgets the holder; `release` comes before."""
        if project_id:
            tx.run("DELETE FROM projects WHERE project_id = ?", (project_id,))

    # -- the kernel ----------------------------------------------------------------------------------------------------

    def hold(self, project_id: int, trees: Sequence[Path], *, anew: bool = False) -> None:
        """Makes the kernel agree with the row: the limit, and whose the trees are. Quick if nothing is to be done.

        anew: what is in the trees came from elsewhere. Slow for a tree with much in it, for a thread then. Raises
        Unsupported where the file system doesn't limit trees, NotFound.
        """
        self.check()
        row = self._db.one("SELECT size_bytes, whole FROM projects WHERE project_id = ?", (project_id,))
        if row is None:
            raise NotFound(f"project {project_id}: not found")
        root_fd = open_directory(self.root)
        try:
            if kernel.usage(root_fd, project_id)[2] != _rounded(row["size_bytes"]):
                kernel.set_limit(root_fd, project_id, row["size_bytes"])
        finally:
            os.close(root_fd)
        faults.point("storage.quotas.limited")
        changed = [give(tree, project_id) for tree in trees]
        if row["whole"] and not anew and not any(changed):
            return
        for tree in trees:
            give_all(tree, project_id)
        faults.point("storage.quotas.given")
        with self._db.transaction(durable=False) as tx:
            tx.run("UPDATE projects SET whole = 1 WHERE project_id = ?", (project_id,))

    def _set(self, project_id: int, size_bytes: int) -> None:
        root_fd = open_directory(self.root)
        try:
            kernel.set_limit(root_fd, project_id, size_bytes)
        finally:
            os.close(root_fd)

    def release(self, project_id: int) -> None:
        """Takes the kernel's limit away. What it fails at is no reason to keep the tree."""
        if not project_id:
            return
        with suppress(KernelError, Unsupported):  # the file system has lost its quotas, or its limits with them
            self._set(project_id, 0)
        faults.point("storage.quotas.released")


def _rounded(size_bytes: int) -> int:
    """As the kernel keeps it: whole blocks of 512 bytes."""
    return -(-size_bytes // 512) * 512


def missing(root: Path) -> str:
    """What a file system lacks, and how to get it."""
    return (
        f"{disk_of(root)} has no project quotas; xfs has them if mounted with -o pquota, ext4 with -o prjquota after "
        "tune2fs -O project,quota -Q prjquota"
    )


def give(path: Path, project_id: int) -> bool:
    """Makes a directory, and what will be made in it, a project's; False if it was."""
    directory_fd = open_directory(path)
    try:
        return kernel.set_project(directory_fd, project_id)
    finally:
        os.close(directory_fd)


def give_all(tree: Path, project_id: int) -> None:
    """The same for all that is in it, twice: what moves under the first walk belongs to it at the second.

    A link, device, socket or pipe can't be opened; it takes no bytes. Raises KernelError.
    """
    for _ in range(2):
        give(tree, project_id)
        changed = False
        with Stack([tree]) as stack:
            for found in stack.walk(whiteouts=True):
                kind = stat.S_IFMT(found.status.st_mode)
                if kind not in (stat.S_IFDIR, stat.S_IFREG):
                    continue
                flags = os.O_RDONLY | os.O_NONBLOCK | (os.O_DIRECTORY if kind == stat.S_IFDIR else 0)
                try:
                    fd = open_beneath(found.directory_fd, found.name, flags)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # removed meanwhile
                try:
                    changed = kernel.set_project(fd, project_id) or changed
                finally:
                    os.close(fd)
        if not changed:
            return
