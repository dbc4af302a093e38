"""The engine's one SQLite file: ordered migrations per room, short transactions, committed reads.

Must never hold a transaction across slow work (network, extraction), nor hand out its connections.

    schema_steps(room TEXT PRIMARY KEY, version INTEGER)      how many steps of each room's list have been applied

WAL mode: `kill -9` at any point loses no committed transaction. A durable transaction is also on the disk when it
returns; others reach the disk with the next durable one (they share the log), at the latest at the next checkpoint.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tare import errors, faults
from tare.storage.full_disk import Reserve, full_disk_error

_making_room: ContextVar[bool] = ContextVar("making_room", default=False)


@contextmanager
def making_room() -> Iterator[None]:
    """A removal, or what follows a program's end: all its transactions may use what is kept in reserve."""
    token = _making_room.set(True)
    try:
        yield
    finally:
        _making_room.reset(token)


Value = str | int | float | bytes | None


class Transaction:
    """One open transaction; sees its own writes. Only valid inside `with database.transaction()`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, params: Sequence[Value] = ()) -> int:
        """Executes one statement; returns how many rows it changed."""
        return self._connection.execute(sql, params).rowcount

    def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        self._connection.executemany(sql, rows)

    def all(self, sql: str, params: Sequence[Value] = ()) -> list[sqlite3.Row]:
        return self._connection.execute(sql, params).fetchall()

    def one(self, sql: str, params: Sequence[Value] = ()) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(sql, params).fetchone()
        return row


class Database:
    """A guarded writer and a guarded reader on one file; every method may be called from any thread.

    Reads see what is committed and don't wait for a writer's sync; inside a transaction of the same thread they see
    its writes too.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._write_lock = threading.RLock()
        self._read_lock = threading.Lock()
        self._writing_thread: int | None = None
        self._synchronous = ""
        self._reserve = Reserve(self.path.parent)
        self._reserve.release()  # SQLite makes files as it begins; an engine on a full disk must start, to free some
        self._writer = self._connect()
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._set_synchronous("FULL")
        with self.transaction() as tx:
            tx.run("CREATE TABLE IF NOT EXISTS schema_steps (room TEXT PRIMARY KEY, version INTEGER NOT NULL)")
        self._reader = self._connect()
        self._reserve.refill()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _set_synchronous(self, mode: str) -> None:
        if mode != self._synchronous:
            self._writer.execute(f"PRAGMA synchronous = {mode}")  # can't change inside a transaction
            self._synchronous = mode

    def migrate(self, room: str, steps: Sequence[str]) -> None:
        """Brings `room` to step len(steps). A step is one or more statements; each step is one transaction."""
        while True:
            with self.transaction() as tx:
                row = tx.one("SELECT version FROM schema_steps WHERE room = ?", (room,))
                version = int(row["version"]) if row else 0
                if version > len(steps):
                    raise errors.Unsupported(
                        f"{self.path}: {room} has schema {version}, newer than {len(steps)} that this engine knows"
                    )
                if version == len(steps):
                    return
                for statement in split_statements(steps[version]):
                    tx.run(statement)
                faults.point("storage.database.migrate")
                tx.run("INSERT OR REPLACE INTO schema_steps (room, version) VALUES (?, ?)", (room, version + 1))

    @contextmanager
    def transaction(self, durable: bool = True, *, frees: bool = False) -> Iterator[Transaction]:
        """BEGIN IMMEDIATE … COMMIT; rolled back if the block raises. Not nestable.

        frees: what follows gives space back, or helps to; on a full disk it may use what is kept in reserve.
        Raises ResourceExhausted, with the disk's name, for whatever fails in it for want of space.
        """
        with self._write_lock:
            if self._writing_thread is not None:
                raise errors.Internal("a database transaction can't be opened inside another")
            if frees or _making_room.get():
                self._reserve.release()
            elif self._reserve.is_missing:
                self._reserve.refill()
            self._set_synchronous("FULL" if durable else "NORMAL")
            self._writing_thread = threading.get_ident()
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield Transaction(self._writer)
                faults.point("storage.database.commit")
                self._writer.execute("COMMIT")
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if (told := full_disk_error(error, self.path.parent)) is not None:
                    raise told from error
                raise
            finally:
                self._writing_thread = None

    def refill_reserve(self) -> None:
        """After space was given back."""
        self._reserve.refill()

    def all(self, sql: str, params: Sequence[Value] = ()) -> list[sqlite3.Row]:
        if self._writing_thread == threading.get_ident():
            return self._writer.execute(sql, params).fetchall()
        with self._read_lock:
            return self._reader.execute(sql, params).fetchall()

    def one(self, sql: str, params: Sequence[Value] = ()) -> sqlite3.Row | None:
        rows = self.all(sql, params)
        return rows[0] if rows else None

    def reindex(self) -> None:
        """Makes all indexes anew of their tables."""
        with self._write_lock:
            self._writer.execute("REINDEX")

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()


def split_statements(script: str) -> Iterator[str]:
    """The statements of a script one by one (`executescript` would commit the open transaction)."""
    statement = ""
    for part in script.split(";"):
        statement += part
        if sqlite3.complete_statement(statement + ";"):
            if statement.strip():
                yield statement
            statement = ""
        else:
            statement += ";"
