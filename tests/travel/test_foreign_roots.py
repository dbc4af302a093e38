"""Engines under Debian 12's and Debian 13's roots: what is made on one runs on the other. With TARE_ROOTS=all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign_roots import RootedEngine, cache_directory, make_root

from support.engine import Engine

pytestmark = [
    pytest.mark.skipif(os.environ.get("TARE_ROOTS") != "all", reason="other roots need TARE_ROOTS=all"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def roots() -> Iterator[tuple[Engine, Engine]]:
    """The engine under Debian 12, and the one under Debian 13."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    directory = Path(tempfile.mkdtemp(prefix="tare-roots-", dir="/var/tmp"))
    started: list[RootedEngine] = []
    try:
        for suite in ("bookworm", "trixie"):
            root = make_root(suite, directory, cache_directory())
            started.append(RootedEngine(root, f"ttr{secrets.token_hex(3)}"))
        started[0].engine.prepare()
        yield started[0].engine, started[1].engine
    finally:
        for one in started:
            one.stop()
        shutil.rmtree(directory, ignore_errors=True)


def test_their_roots_differ(roots: tuple[Engine, Engine]) -> None:
    """Each is what it says."""
    found = [engine.api.request("GET", "/info").json["OperatingSystem"] for engine in roots]
    assert ["12 (bookworm)" in found[0], "13 (trixie)" in found[1]] == [True, True], found
    pythons = [engine.api.request("GET", "/version").json["Components"][0]["Details"] for engine in roots]
    assert pythons[0] != pythons[1]


def test_a_container_moves_there_and_back(roots: tuple[Engine, Engine]) -> None:
    """With its files, volume, network and image; each time it runs on under the other root."""
    old, new = roots
    old.docker("network", "create", "shared")
    script = "echo run >> /count; echo run >> /data/count; trap exit TERM; sleep 1000 & wait"
    flags = ("-d", "--name", "web", "--network", "shared", "-v", "shop:/data", "--memory", "64m")
    old.docker("run", *flags, old.image, "sh", "-c", script)
    old.tare_cli("move", "--stop", "web", f"unix://{new.socket}", timeout=60)
    assert new.docker("exec", "web", "cat", "/count", "/data/count").out == "run\n" * 4
    assert new.docker("exec", "web", "cat", "/proc/1/cgroup").code == 0
    new.docker("volume", "ls")
    old.docker("volume", "rm", "shop")
    new.tare_cli("move", "--stop", "web", f"unix://{old.socket}", timeout=60)
    assert old.docker("exec", "web", "cat", "/count", "/data/count").out == "run\n" * 6


def test_an_archive_of_one_is_read_by_the_other(roots: tuple[Engine, Engine]) -> None:
    """save and load, export and import, with libraries of different ages."""
    old, new = roots
    old.docker("run", "--name", "made", old.image, "sh", "-c", "echo here > /f")
    old.docker("commit", "made", "made:1")
    new.docker("load", input=old.api.request("GET", "/images/made:1/get").body)
    assert new.docker("run", "--rm", "made:1", "cat", "/f").out == "here\n"
    new.docker("import", "-", "flat", input=old.api.request("GET", "/containers/made/export").body)
    assert new.docker("run", "--rm", "flat", "cat", "/f").out == "here\n"
