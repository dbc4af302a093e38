"""What a check found broken: marks that make a use fail with words, until the thing comes in again.

Must never be set by anything but a check that was told to repair.

    damage(subject TEXT PRIMARY KEY, problem TEXT, found_ns INTEGER)       subject: a layer's diff ID, an image's id
"""

from __future__ import annotations

import time

from tare.errors import Internal
from tare.storage.database import Database, Transaction


class Damage:
    """All marks of one store."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def mark(self, subject: str, problem: str) -> None:
        with self._db.transaction() as tx:
            tx.run(
                "INSERT OR REPLACE INTO damage (subject, problem, found_ns) VALUES (?, ?, ?)",
                (subject, problem, time.time_ns()),
            )

    def of(self, subject: str) -> str:
        """What is wrong with it, "" if nothing is known."""
        row = self._db.one("SELECT problem FROM damage WHERE subject = ?", (subject,))
        return row["problem"] if row else ""

    def all(self) -> dict[str, str]:
        return {row["subject"]: row["problem"] for row in self._db.all("SELECT * FROM damage ORDER BY subject")}


def clear(tx: Transaction, subject: str) -> None:
    """Within the transaction that records the thing anew, or forgets it."""
    tx.run("DELETE FROM damage WHERE subject = ?", (subject,))


def check_undamaged(tx: Transaction, diff_id: str) -> None:
    """Raises Internal for a layer that is marked."""
    row = tx.one("SELECT problem FROM damage WHERE subject = ?", (diff_id,))
    if row is not None:
        raise Internal(f"layer {diff_id} is damaged ({row['problem']}): load or pull its image again")
