"""Nothing is lost on the way to a log server: neither while it is down, nor over a death of tared; what the bounded
file gave up is counted."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from log_servers import StreamServer

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared
from tare.engine.log_position import Position, PositionedReader, load_position, save_position
from tare.runtime.jsonlog import JsonLog, clear_files


def numbers(data: bytes) -> list[int]:
    """The numbers of the lines `line N` that a server has."""
    return [int(found) for found in re.findall(rb"line (\d+)\n", data)]


def start(engine: Engine, port: int, count: int, *options: str) -> str:
    """A container that writes numbered lines and ends."""
    opts = [part for option in options for part in ("--log-opt", option)]
    script = f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); done"
    address = ("--log-opt", f"syslog-address=tcp://127.0.0.1:{port}")
    argv = ("run", "-d", "--log-driver", "syslog", *address, *opts, engine.image, "sh", "-c", script)
    return engine.docker(*argv).out.strip()


def shipping(engine: Engine, container: str) -> dict[str, object]:
    """inspect's LogShipping."""
    found = engine.inspect(container)["LogShipping"]
    assert isinstance(found, dict)
    return found


def test_a_dead_server_blocks_nobody(tare: Engine) -> None:
    """A container starts, writes and ends while its log server is down; when that is up, all comes, in order."""
    server = StreamServer().reserve()
    container = start(tare, server.port, 3000)
    assert tare.exit_code(container) == 0
    wait_until(lambda: "refused" in str(shipping(tare, container)["Error"]).lower(), "an error to be seen")
    assert len(tare.docker("logs", container).out.splitlines()) == 3000
    with server:
        server.wait(lambda data: b"line 2999\n" in data, "the last line")
    assert numbers(server.received) == list(range(3000))
    wait_until(lambda: shipping(tare, container)["Sent"] == 3000, "the stock is taken")
    assert shipping(tare, container) == {"Driver": "syslog", "Sent": 3000, "Dropped": 0, "Error": ""}


def test_tared_dies_in_the_middle(daemon: Tared) -> None:
    """After kill -9 of tared the next one goes on where that was: no gap, in order, at most one batch twice."""
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    with StreamServer() as server:
        container = start(engine, server.port, 60_000)
        server.wait(lambda data: len(numbers(data)) > 500, "some lines")
        daemon.kill9()
        seen = len(server.received)
        daemon.start()
        server.wait(lambda data: b"line 59999\n" in data, "the last line")
        got = numbers(server.received)
        assert sorted(set(got)) == list(range(60_000))
        assert len(got) - 60_000 <= 512, (len(got), seen)
        wait_until(lambda: shipping(engine, container)["Sent"] == 60_000, "the stock is taken")
    daemon.restart()
    assert shipping(engine, container)["Sent"] == 60_000


def test_what_rotates_away_is_counted(daemon: Tared) -> None:
    """If the file gives entries up before the server took them, their number is logged and shown; the rest comes."""
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    server = StreamServer().reserve()
    container = start(engine, server.port, 20_000, "cache-max-size=100k", "cache-max-file=3")
    assert engine.exit_code(container, 60) == 0
    with server:
        server.wait(lambda data: b"line 19999\n" in data, "the last line")
        wait_until(lambda: not shipping(engine, container)["Error"], "the stock is taken")
    got = sorted(set(numbers(server.received)))
    state = shipping(engine, container)
    assert state["Dropped"] and state["Sent"] == len(got)
    assert len(got) + int(str(state["Dropped"])) == 20_000
    assert f"{state['Dropped']} log entries were rotated away" in daemon.log_tail(50)


def test_rm_does_not_lose_the_last_words(tare: Engine) -> None:
    """With --rm the container goes once a server that works has its log; one that is down keeps it from nothing."""
    with StreamServer() as server:
        address = ("--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{server.port}")
        tare.docker("run", "--rm", *address, tare.image, "sh", "-c", "echo one; echo line 7")
        server.wait(lambda data: b"line 7\n" in data, "the last line")
    tare.docker("run", "--rm", *address, tare.image, "echo", "nobody")
    wait_until(lambda: not tare.containers(), "the containers are gone")


def test_cleared_entries_count_as_dropped(daemon: Tared) -> None:
    """`logs --clear` before the server took them: a tared that has them open no more counts them as dropped."""
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    server = StreamServer().reserve()
    container = start(engine, server.port, 2000)
    assert engine.exit_code(container) == 0
    wait_until(lambda: shipping(engine, container)["Error"], "the server is missed")
    engine.tare_cli("logs", "--clear", container)
    assert engine.docker("logs", container).out == ""
    daemon.restart()
    engine.docker("start", container)
    assert engine.exit_code(container) == 0
    assert engine.docker("logs", "--tail", "3000", container).out.count("line ") == 2000
    with server:
        server.wait(lambda data: data.endswith(b"line 1999\n"), "the second run's last line")
        wait_until(lambda: shipping(engine, container)["Sent"] == 2000, "the stock is taken")
    assert numbers(server.received) == list(range(2000))
    assert shipping(engine, container)["Dropped"] == 2000


def test_death_between_server_and_position(daemon: Tared) -> None:
    """tared dies when the server has a batch and the position isn't stored: that batch comes twice, nothing else."""
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    daemon.terminate()
    daemon.start(env={"TARE_FAULT": "engine.logs.shipped@3:kill"})
    with StreamServer() as server:
        start(engine, server.port, 5000)
        daemon.wait_dead()
        daemon.start()
        server.wait(lambda data: b"line 4999\n" in data, "the last line")
        got = numbers(server.received)
        assert sorted(set(got)) == list(range(5000))
        assert 0 < len(got) - 5000 <= 256


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("files", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_reader_accounts_for_every_entry(tmp_path: Path, files: int, compress: bool, seed: int) -> None:
    """Whatever rotates, is compressed, cleared or restarted in between: read + lost is all, in order, none twice."""
    dice = random.Random(f"{files} {compress} {seed}")
    path, directory = str(tmp_path / "log"), str(tmp_path)
    log = JsonLog(path, 3000, files, compress=compress, counted=True)
    reader = PositionedReader(path, Position())
    written, got = 0, []
    for _ in range(60):
        for _ in range(dice.choice((0, 1, 5, 30, 120))):
            log.write("stdout", b"line %d\n" % written)
            written += 1
        for _ in range(dice.choice((0, 0, 1, 3))):
            got += [int(entry.log[5:]) for entry in reader.read()]
        save_position(directory, reader.position)
        event = dice.random()
        if event < 0.08:
            log.clear()
        elif event < 0.16:  # the container is started again: another monitor
            log.close()
            log = JsonLog(path, 3000, files, compress=compress, counted=True)
        elif event < 0.3:  # another tared
            reader.close()
            reader = PositionedReader(path, load_position(directory))
    log.close()
    log._wait_compressor()
    while entries := reader.read():
        got += [int(entry.log[5:]) for entry in entries]
    reader.close()
    assert got == sorted(set(got))
    assert len(got) + reader.position.lost == reader.position.index == written
    clear_files(path, counted=True)
    assert sorted(os.listdir(tmp_path)) == ["log", "shipped.json"]


POINTS = [
    "monitor.log.rotate.unlinked",
    "monitor.log.rotate.shifted",
    "monitor.log.rotate.shifted@2",
    "monitor.log.rotate.moved",
    "monitor.log.rotate.emptied",
    "monitor.log.compress.written",
    "monitor.log.compress.renamed",
    "monitor.log.clear.emptied",
]
WRITER = """
import sys
from tare.runtime.jsonlog import JsonLog
path, files, first, clear = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "clear"
log = JsonLog(path, 3000, files, compress=files > 2, counted=True)
for number in range(first, first + 150):
    log.write("stdout", b"line %d\\n" % number)
if clear:
    log.clear()
log.close()
log._wait_compressor()
"""


@pytest.mark.parametrize("files", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS)
def test_a_monitor_that_dies_in_rotation(tmp_path: Path, point: str, files: int) -> None:
    """Killed at any step of a rotation or clearing: the next monitor goes on, and the account is right."""
    path = str(tmp_path / "log")
    reader = PositionedReader(path, Position())
    got: list[int] = []
    clear = "clear" if "clear" in point else ""
    for first, fault in ((0, ""), (1000, f"{point}:kill"), (2000, ""), (3000, "")):
        environment = {**os.environ, "TARE_FAULT": fault}
        subprocess.run(
            [sys.executable, "-c", WRITER, path, str(files), str(first), clear], env=environment, timeout=100
        )
        if first != 2000:  # the reader is late once
            while entries := reader.read():
                got += [int(entry.log[5:]) for entry in entries]
    reader.close()
    assert got == sorted(set(got))
    assert len(got) + reader.position.lost == reader.position.index
    if not clear:
        assert got[-1] == 3149
    assert not any(number > files for number in map(int, re.findall(r"log\\.(\\d+)", " ".join(os.listdir(tmp_path)))))
