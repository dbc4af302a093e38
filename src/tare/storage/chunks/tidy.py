"""What packing does on its own: finds the older versions of what was committed, and packs them when nobody sees them.

Must never fail the verb that it follows: what can't be done now is done another time.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence

import msgspec

from tare import errors, faults
from tare.storage.chunks import mark
from tare.storage.chunks.packing import UPPER, Packing
from tare.storage.chunks.schema import NEVER
from tare.storage.database import Transaction
from tare.storage.merged import Stack
from tare.storage.tree_reader import open_directory, open_directory_beneath


class Tidied(msgspec.Struct, frozen=True, kw_only=True):
    """files, freed_bytes: packed (or unpacked) now. waiting: files that a container or a reader still sees."""

    files: int = 0
    freed_bytes: int = 0
    waiting: int = 0


def note(packing: Packing, diff_id: str, older: Sequence[str]) -> None:
    """A layer has come whose files may be newer versions of older layers' ones, nearest first.

    Costs one small write.
    """
    if older:
        with packing.db.transaction(durable=False) as tx:
            tx.run(
                "INSERT OR REPLACE INTO successors (diff_id, older) VALUES (?, ?)",
                (diff_id, " ".join(dict.fromkeys(one for one in older if one != diff_id))),
            )


def tidy(packing: Packing, *, eager: bool = False) -> Tidied:
    """Packs what may be packed. eager: also what was unpacked lately, and what saved too little before."""
    _look(packing)
    now = NEVER if eager else time.time_ns()
    rows = packing.db.all(
        "SELECT superseded.* FROM superseded LEFT JOIN layers ON layers.diff_id = by_diff_id"
        " WHERE not_before_ns <= ? ORDER BY layers.created_ns",
        (now,),
    )
    files = freed = waiting = 0
    for row in rows:
        try:
            saved = packing.pack(row["diff_id"], row["path"], row["by_diff_id"])
        except (errors.ResourceExhausted, errors.Internal, OSError):
            saved = None  # a full disk, or a damaged version: it is no worse than before
        if saved is None:
            waiting += 1
        elif saved:
            files, freed = files + 1, freed + saved
        else:
            _give_up(packing, row["diff_id"], row["path"])
    packing.give_back()
    return Tidied(files=files, freed_bytes=freed, waiting=waiting)


def _give_up(packing: Packing, diff_id: str, path: bytes) -> None:
    with packing.db.transaction(durable=False) as tx:
        tx.run("UPDATE superseded SET not_before_ns = ? WHERE diff_id = ? AND path = ?", (NEVER, diff_id, path))


def _look(packing: Packing) -> None:
    """Turns layers that have come into files to be packed."""
    rows = packing.db.all(
        "SELECT diff_id, older FROM successors LEFT JOIN layers USING (diff_id) ORDER BY layers.created_ns"
    )
    for row in rows:  # in their order, so that each is superseded by the next one
        found: list[tuple[str, bytes, str]] = []
        for path in large_files(packing, row["diff_id"]):
            if row["diff_id"].startswith(UPPER):
                nearest = next((old for old in row["older"].split() if _has(packing, old, path)), None)
                found += [(row["diff_id"], path, nearest)] if nearest is not None else []
                continue
            found += [
                (old, path, row["diff_id"]) for old in row["older"].split() if _has(packing, old, path, plain=True)
            ]
        faults.point("storage.pack.noted")
        with packing.db.transaction(durable=False) as tx:
            _supersede(tx, found)
            tx.run("DELETE FROM successors WHERE diff_id = ?", (row["diff_id"],))


def _supersede(tx: Transaction, found: Sequence[tuple[str, bytes, str]]) -> None:
    tx.run_many("INSERT OR IGNORE INTO superseded (diff_id, path, by_diff_id) VALUES (?, ?, ?)", found)


def note_everything(packing: Packing, diff_ids: Sequence[str]) -> None:
    """Of all these layers, oldest first: each large file is superseded by that of the next one that has its path."""
    last: dict[bytes, str] = {}
    found = []
    for diff_id in diff_ids:
        for path in large_files(packing, diff_id):
            if path in last and packing.rows.find(last[path], path) is None:
                found.append((last[path], path, diff_id))
            last[path] = diff_id
    with packing.db.transaction(durable=False) as tx:
        _supersede(tx, found)


def large_files(packing: Packing, diff_id: str) -> list[bytes]:
    """Paths of a layer's files that are large enough; none if the layer is gone."""
    try:
        with Stack([packing.tree(diff_id)]) as stack:
            return [
                found.path
                for found in stack.walk()
                if stat.S_ISREG(found.status.st_mode) and found.status.st_size > mark.MIN_BYTES
            ]
    except FileNotFoundError:
        return []


def _has(packing: Packing, diff_id: str, path: bytes, *, plain: bool = False) -> bool:
    """Whether a layer has a large file at a path; plain: one that isn't packed yet."""
    head, _, name = path.rpartition(b"/")
    try:
        tree_fd = open_directory(packing.layers.path(diff_id))
        try:
            parent_fd = open_directory_beneath(tree_fd, head)
        finally:
            os.close(tree_fd)
        try:
            status = os.lstat(name, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)
    except (FileNotFoundError, NotADirectoryError):
        return False
    large = stat.S_ISREG(status.st_mode) and status.st_size > mark.MIN_BYTES
    return large and not (plain and packing.rows.find(diff_id, path) is not None)
