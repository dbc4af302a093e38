"""Leases: what keeps layers and originals alive while a verb works on them, before something durable refers to them.

Must never outlive its holder: a lease whose process is gone counts for nothing; the next collection forgets it.

They are rows, so that the collector decides within the transaction that deletes, and another process on the same
data (a check, a builder) sees them and can have its own. A holder is a process: boot, pid and when it started.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec

from tare import errors
from tare.storage.database import Database, Transaction


class Lease:
    """One verb's hold. It holds what it was begun with and what was added to it; `Layers.lease` ends it.

    reads: the verb stores nothing, and helps to make room: it must go on a full disk.
    """

    __slots__ = ("diff_ids", "lease_id", "originals", "reads")

    def __init__(self, *, reads: bool = False) -> None:
        self.reads = reads
        self.lease_id = os.urandom(16).hex()
        self.diff_ids: set[str] = set()
        self.originals: set[str] = set()


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A lease as the database has it. what: the verb. pid: of its holder."""

    lease_id: str
    what: str
    pid: int
    created_ns: int
    digests: tuple[str, ...]


class Leases:
    """All leases on one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._ended: set[str] = set()

    def begin(self, tx: Transaction, lease: Lease, what: str) -> None:
        tx.run(
            "INSERT INTO leases (lease_id, holder, what, created_ns) VALUES (?, ?, ?, ?)",
            (lease.lease_id, this_process(), what, time.time_ns()),
        )

    @staticmethod
    def hold(tx: Transaction, lease: Lease, digest: str) -> None:
        """A layer or an original, whose row the transaction has seen or makes."""
        tx.run("INSERT OR IGNORE INTO lease_holds (lease_id, digest) VALUES (?, ?)", (lease.lease_id, digest))

    def end(self, lease: Lease) -> None:
        """Never fails: what can't be written now (a full disk) is made good by the next collection."""
        self._ended.add(lease.lease_id)
        try:
            with self._db.transaction(durable=False, frees=True) as tx:
                _forget(tx, [lease.lease_id])
        except (sqlite3.Error, errors.ResourceExhausted):
            return
        self._ended.discard(lease.lease_id)

    def held(self, tx: Transaction) -> set[str]:
        """Digests that living processes hold; forgets the leases of dead ones."""
        ended = set(self._ended)
        rows = tx.all("SELECT lease_id, holder FROM leases")
        _forget(tx, [row["lease_id"] for row in rows if row["lease_id"] in ended or not is_alive(row["holder"])])
        return {row["digest"] for row in tx.all("SELECT digest FROM lease_holds")}

    def all(self) -> list[LeaseRecord]:
        """Oldest first, those of dead processes too."""
        return [
            LeaseRecord(
                lease_id=row["lease_id"],
                what=row["what"],
                pid=int(row["holder"].split()[1]),
                created_ns=row["created_ns"],
                digests=tuple(
                    hold["digest"]
                    for hold in self._db.all("SELECT digest FROM lease_holds WHERE lease_id = ?", (row["lease_id"],))
                ),
            )
            for row in self._db.all("SELECT * FROM leases ORDER BY created_ns")
        ]


def _forget(tx: Transaction, lease_ids: Iterable[str]) -> None:
    rows = [(lease_id,) for lease_id in lease_ids]
    tx.run_many("DELETE FROM lease_holds WHERE lease_id = ?", rows)
    tx.run_many("DELETE FROM leases WHERE lease_id = ?", rows)


@lru_cache(1)
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def this_process() -> str:
    """What tells this process from all others, earlier ones with its pid too."""
    return _holder(os.getpid())


@lru_cache(2)
def _holder(pid: int) -> str:
    return f"{_boot()} {pid} {_started(pid)}"


def is_alive(holder: str) -> bool:
    boot, pid, started = holder.split()
    return boot == _boot() and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process started, in ticks since boot (proc_pid_stat(5), field 22); "" if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
