"""Commits of a database cost what changed, without anybody asking for it; any version runs, and kill -9 is survived.

TARE_TEST_DATABASE_MB=1024 makes it the large form.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import random
import tarfile

import pytest

import tare
from support import trees
from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

MEGABYTES = int(os.environ.get("TARE_TEST_DATABASE_MB", "4"))
LIMIT_S = 20 + MEGABYTES / 10
PAGES = 4


def disk_bytes(daemon: Tared) -> int:
    return trees.disk_bytes(daemon.data_root / "layers")


def changed(seed: int) -> str:
    """A command that changes some pages of the database and tells its digest."""
    source = random.Random(seed)
    seeks = [source.randrange(MEGABYTES * 256) for _ in range(PAGES)]
    one = "dd if=/dev/urandom of=/db/data bs=4096 count=1 conv=notrunc seek={} 2>/dev/null"
    return "; ".join([*(one.format(seek) for seek in seeks), "sha256sum /db/data"])


def grow(engine: Engine, count: int) -> list[str]:
    """Commits of one running container: db:0, db:1 …; their databases' digests."""
    make = f"mkdir /db; dd if=/dev/urandom of=/db/data bs=1M count={MEGABYTES} 2>/dev/null; exec sleep 1000"
    engine.docker("run", "-d", "--name", "work", engine.image, "sh", "-c", make, timeout=LIMIT_S)
    size = str(MEGABYTES << 20)
    wait_until(
        lambda: engine.docker("exec", "work", "stat", "-c", "%s", "/db/data", check=False).out.strip() == size,
        "the database is there",
        LIMIT_S,
    )
    digests = []
    for number in range(count):
        digests.append(engine.docker("exec", "work", "sh", "-c", changed(number), timeout=LIMIT_S).out.split()[0])
        engine.docker("commit", "work", f"db:{number}", timeout=LIMIT_S)
    return digests


def digest_in(archive: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile("db/data")
        assert member is not None
        return hashlib.file_digest(member, "sha256").hexdigest()


@pytest.mark.timeout(120 + 3 * MEGABYTES)
def test_commits_cost_what_changed(daemon: Tared) -> None:
    """Fifteen versions take the room of one and the changes; each can be exported, the last runs without unpacking."""
    engine = daemon.start().engine
    engine.prepare()
    count = 15
    before = disk_bytes(daemon)
    digests = grow(engine, count)
    most = (MEGABYTES << 20) + count * PAGES * 4096 * 3 + (1 << 20)
    wait_until(lambda: disk_bytes(daemon) - before < most, "older versions are packed", LIMIT_S)
    assert engine.run(f"db:{count - 1}", "sha256sum", "/db/data").out.split()[0] == digests[-1]
    assert disk_bytes(daemon) - before < most
    for number in (0, 7):
        engine.docker("create", "--name", f"v{number}", f"db:{number}", "true", timeout=LIMIT_S)
        exported = engine.api.request("GET", f"/containers/v{number}/export").body
        assert digest_in(exported) == digests[number]
        engine.docker("rm", f"v{number}")
    archive = engine.api.request("GET", "/images/db:3/get").body
    engine.docker("rmi", "db:3")
    engine.api.request("POST", "/images/load", archive)
    assert engine.run("db:3", "sha256sum", "/db/data", timeout=LIMIT_S).out.split()[0] == digests[3]
    with tare.connect(f"unix://{engine.socket}") as library:
        plain = library.pack(unpack=True)
        assert (plain.packed_files, plain.pack_bytes) == (0, 0) and plain.freed_bytes == -plain.files * (
            MEGABYTES << 20
        )
        packed = library.pack()
        assert packed.packed_files == packed.files > 10 and packed.pack_bytes < packed.packed_bytes / 10
    assert engine.tare_cli("system", "fsck", timeout=LIMIT_S).out.startswith("all is well")


@pytest.mark.parametrize("point", ["storage.pack.recorded", "storage.pack.emptied", "storage.pack.synced"])
def test_the_engine_dies_while_it_packs(daemon: Tared, point: str) -> None:
    """After kill -9 and a restart every version is whole, and packing goes on."""
    engine = daemon.start(env={"TARE_FAULT": f"{point}:kill"}).engine
    engine.prepare()
    before = disk_bytes(daemon)
    make = f"dd if=/dev/urandom of=/data bs=1M count={MEGABYTES} 2>/dev/null"
    engine.docker("run", "--name", "work", engine.image, "sh", "-c", make, timeout=LIMIT_S)
    engine.docker("commit", "work", "db:0", timeout=LIMIT_S)
    engine.docker("run", "--name", "more", "db:0", "sh", "-c", "echo changed >> /data", timeout=LIMIT_S)
    engine.docker("rm", "-f", "work")
    # The older version is packed in the background as soon as the newer one is recorded: the engine may die before it
    # answers the commit, or at the removal.
    engine.docker("commit", "more", "db:1", timeout=LIMIT_S, check=False)
    with contextlib.suppress(OSError, http.client.HTTPException):
        engine.api.request("DELETE", "/containers/more", query={"trash": "0"}, check=False)
    daemon.wait_dead()
    engine = daemon.start().engine
    if engine.docker("image", "inspect", "db:1", check=False).code:
        engine.docker("commit", "more", "db:1", timeout=LIMIT_S)
    engine.api.request("DELETE", "/containers/more", query={"trash": "0"}, check=False)
    engine.tare_cli("trash", "empty", "-f")
    most = (MEGABYTES << 20) + (1 << 20)
    wait_until(lambda: disk_bytes(daemon) - before < most, "the older version is packed", LIMIT_S)
    for number, size in ((0, MEGABYTES << 20), (1, (MEGABYTES << 20) + 8)):
        assert engine.run(f"db:{number}", "stat", "-c", "%s", "/data", timeout=LIMIT_S).out == f"{size}\n"
    assert engine.tare_cli("system", "fsck", timeout=LIMIT_S).out.startswith("all is well")


def test_the_trash_costs_what_changed(daemon: Tared) -> None:
    """Containers that were committed and removed wait in the trash without their database; one comes back whole, also
    if the engine dies on the way."""
    engine = daemon.start().engine
    engine.prepare()
    make = f"dd if=/dev/urandom of=/data bs=1M count={MEGABYTES} 2>/dev/null"
    engine.docker("run", "--name", "c0", engine.image, "sh", "-c", make, timeout=LIMIT_S)
    engine.docker("commit", "c0", "db:0", timeout=LIMIT_S)
    for number in range(1, 4):
        change = f"echo {number} >> /data; sha256sum /data"
        engine.docker("run", "--name", f"c{number}", f"db:{number - 1}", "sh", "-c", change, timeout=LIMIT_S)
        engine.docker("commit", f"c{number}", f"db:{number}", timeout=LIMIT_S)
    digests = [engine.docker("logs", f"c{number}").out.split()[0] for number in range(1, 4)]
    engine.docker("rm", "c0", "c1", "c2", "c3")

    def used() -> int:
        places = [daemon.data_root / "layers", daemon.data_root / "snapshots"]
        return sum(map(trees.disk_bytes, places))

    most = (MEGABYTES << 20) + (6 << 20) // 2
    wait_until(lambda: used() < most, "the trash is packed", LIMIT_S)
    engine.tare_cli("trash", "restore", "c2", timeout=LIMIT_S)
    exported = engine.api.request("GET", "/containers/c2/export").body
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        member = tar.extractfile("data")
        assert member is not None
        assert hashlib.file_digest(member, "sha256").hexdigest() == digests[1]
    daemon.terminate()
    engine = daemon.start(env={"TARE_FAULT": "engine.trash.restored:kill"}).engine
    wait_until(lambda: used() < most + (MEGABYTES << 21), "packed", LIMIT_S)
    with pytest.raises((OSError, http.client.HTTPException)):
        engine.api.request("POST", "/tare/trash/c3/restore", check=False)
    daemon.wait_dead()
    engine = daemon.start().engine
    for number in (2, 3):
        engine.docker("start", "-a", f"c{number}", timeout=LIMIT_S)
        again = engine.docker("logs", f"c{number}").out.split()[-2]
        known = engine.run(f"db:{number}", "sh", "-c", f"echo {number} >> /data; sha256sum /data").out.split()[0]
        assert again == known
