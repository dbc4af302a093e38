"""The reflog's table: each time a name came to, left, or went from one image to another.

Must never be written outside the transaction that moves the name, nor keep an image alive: it only remembers.
"""

from __future__ import annotations

import sqlite3

import msgspec

from tare.storage.database import Transaction
from tare.values.reference import Reference, parse_reference
from tare.values.timestamps import now_ns

KEPT_NS = 90 * 24 * 3600 * 10**9
KEPT_MOVES = 10_000


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """old_id None: the name was new; new_id None: it was taken away. why: the verb that moved it.

    old_target: the manifest or index that the name stood for, "" for the old image's own manifest.
    """

    number: int
    reference: Reference
    old_id: str | None
    new_id: str | None
    time_ns: int
    why: str
    old_target: str = ""


def record_move(tx: Transaction, name: str, suffix: str, new_id: str | None, why: str) -> None:
    """Before the name's row changes. A name that stays where it is makes no move."""
    row = tx.one("SELECT image_id, target FROM image_references WHERE name = ? AND suffix = ?", (name, suffix))
    old_id = row["image_id"] if row else None
    if old_id == new_id:
        return
    time_ns = now_ns()
    tx.run(
        "INSERT INTO tag_moves (name, suffix, old_id, new_id, time_ns, why, old_target) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (name, suffix, old_id, new_id, time_ns, why, row["target"] if row else ""),
    )
    tx.run(
        "DELETE FROM tag_moves WHERE time_ns < ? OR number <= (SELECT MAX(number) FROM tag_moves) - ?",
        (time_ns - KEPT_NS, KEPT_MOVES),
    )


def move_of(row: sqlite3.Row) -> Move:
    return Move(
        number=row["number"],
        reference=parse_reference(row["name"] + row["suffix"]),
        old_id=row["old_id"],
        new_id=row["new_id"],
        time_ns=row["time_ns"],
        why=row["why"],
        old_target=row["old_target"],
    )
