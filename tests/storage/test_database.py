"""The database: ordered migrations, transactions that are whole or nothing, reads that don't wait for a sync."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tare import errors, faults
from tare.storage.database import Database, split_statements

STEPS = ("CREATE TABLE a (x INTEGER); CREATE TABLE b (y TEXT DEFAULT ';');", "ALTER TABLE a ADD COLUMN z INTEGER")


def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    db = Database(tmp_path / "db")
    db.migrate("room", STEPS[:1])
    with db.transaction() as tx:
        tx.run("INSERT INTO a (x) VALUES (1)")
    db.migrate("room", STEPS)
    db.migrate("room", STEPS)
    assert tuple(db.one("SELECT x, z FROM a") or ()) == (1, None)
    db.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """An older engine leaves a newer engine's data alone."""
    db = Database(tmp_path / "db")
    db.migrate("room", STEPS)
    with pytest.raises(errors.Unsupported, match="newer"):
        db.migrate("room", STEPS[:1])
    db.close()


def test_a_failed_step_leaves_nothing(tmp_path: Path) -> None:
    db = Database(tmp_path / "db")
    with pytest.raises(Exception, match="syntax error"):
        db.migrate("room", ("CREATE TABLE a (x INTEGER); CREATE NONSENSE;",))
    db.migrate("room", STEPS)
    assert db.all("SELECT * FROM a") == []
    db.close()


def test_rollback(tmp_path: Path) -> None:
    """An exception in the block undoes it; the thread sees its own writes inside, others don't."""
    db = Database(tmp_path / "db")
    db.migrate("room", STEPS)
    with pytest.raises(ZeroDivisionError), db.transaction(durable=False) as tx:
        tx.run("INSERT INTO a (x) VALUES (1)")
        assert len(db.all("SELECT * FROM a")) == 1
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(len(db.all("SELECT * FROM a"))))
        other.start()
        other.join(60)
        assert seen == [0]
        raise ZeroDivisionError
    assert db.all("SELECT * FROM a") == []
    db.close()


def test_transactions_do_not_nest(tmp_path: Path) -> None:
    db = Database(tmp_path / "db")
    with pytest.raises(errors.Internal, match="inside another"), db.transaction(), db.transaction():
        pass
    with db.transaction():
        pass
    db.close()


def test_threads_take_turns(tmp_path: Path) -> None:
    """Transactions of many threads add up."""
    db = Database(tmp_path / "db")
    db.migrate("room", STEPS)
    with db.transaction() as tx:
        tx.run("INSERT INTO a (x) VALUES (0)")

    def work() -> None:
        for _ in range(50):
            with db.transaction(durable=False) as tx:
                row = tx.one("SELECT x FROM a")
                assert row is not None
                tx.run("UPDATE a SET x = ?", (row["x"] + 1,))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    row = db.one("SELECT x FROM a")
    assert row is not None and row["x"] == 200
    db.close()


@pytest.mark.parametrize("point", ["storage.database.migrate", "storage.database.commit"])
def test_kill_leaves_whole_transactions(tmp_path: Path, point: str) -> None:
    """Whatever passage is killed, the file opens and every acknowledged transaction is there."""
    for passage in range(1, 8):
        path = tmp_path / f"{point}{passage}"
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            faults._name, faults._action, faults._left = point, "kill", passage
            db = Database(path)
            db.migrate("room", STEPS)
            for number in range(3):
                with db.transaction() as tx:
                    tx.run("INSERT INTO a (x) VALUES (?)", (number,))
                    tx.run("INSERT INTO b (y) VALUES (?)", (str(number),))
                os.write(writer, b"x")
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as acknowledged:
            count = len(acknowledged.read())
        _, status = os.waitpid(child, 0)
        assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
        db = Database(path)
        db.migrate("room", STEPS)
        found = len(db.all("SELECT * FROM a"))
        assert count <= found <= count + 1
        assert len(db.all("SELECT * FROM b")) == found
        db.close()


def test_statements_are_split_outside_texts() -> None:
    assert [part.strip() for part in split_statements("A ';' b; C;;")] == ["A ';' b", "C"]
