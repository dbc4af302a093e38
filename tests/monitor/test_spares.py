"""Spare monitors: one when nothing happens, more in a burst of starts, and none that is in the way."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.processes import children
from support.tared import Tared

BURST = 12
CROWD = 40


def spares(daemon: Tared) -> set[int]:
    """Pids of the monitors that wait for work."""
    forkers = [forker for launcher in daemon.launchers() for forker in children(launcher)]
    return {pid for forker in forkers for pid in children(forker) if _line(pid).startswith(b"tare: spare monitor")}


@pytest.fixture
def up(daemon: Tared) -> Tared:
    daemon.start()
    daemon.engine.prepare()
    wait_until(lambda: len(spares(daemon)) == 1, "one spare waits")
    return daemon


def test_a_start_takes_the_spare_and_another_is_forked(up: Tared) -> None:
    """The waiting process becomes the container's monitor; a new one waits afterwards."""
    (spare,) = spares(up)
    up.engine.start()
    wait_until(lambda: b"monitor of" in _line(spare), "it is the container's monitor")
    wait_until(lambda: len(spares(up) - {spare}) == 1, "another spare waits")


def test_a_burst_has_more_spares_for_a_while(up: Tared) -> None:
    """Starts that find none leave more behind, which go when nothing happens any more."""
    ids = [str(up.engine.create({"Cmd": ["sleep", "1000"]}).json["Id"]) for _ in range(BURST)]
    with ThreadPoolExecutor(BURST) as pool:
        answers = list(pool.map(lambda id_: up.engine.api.request("POST", f"/containers/{id_}/start"), ids))
    assert {answer.status for answer in answers} == {204}
    wait_until(lambda: len(spares(up)) > 1, "several spares wait")
    wait_until(lambda: len(spares(up)) == 1, "one spare waits", 20)
    assert up.engine.run("@", "echo", "still").out == "still\n"


def test_a_crowd_of_starts_waits_for_the_launcher(up: Tared) -> None:
    """More plans at once than the launcher's socket holds: none is refused."""
    options = {"Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}  # so that nothing spaces them out
    ids = [str(up.engine.create(options).json["Id"]) for _ in range(CROWD)]
    with ThreadPoolExecutor(CROWD) as pool:
        answers = list(pool.map(lambda id_: up.engine.api.request("POST", f"/containers/{id_}/start"), ids))
    assert [(answer.status, answer.body) for answer in answers if answer.status != 204] == []
    assert up.engine.run("@", "echo", "still").out == "still\n"


def test_execs_that_follow_each_other_have_spares_of_their_own(up: Tared) -> None:
    """They are forked without a first process, leave that of the next container alone, and go when all is quiet."""
    name = up.engine.start()
    for _ in range(2):
        up.engine.docker("exec", name, "true")
    wait_until(lambda: len(spares(up)) == 2, "one for a container, one for an exec")
    (ready,) = wait_until(lambda: [pid for pid in spares(up) if _has_first_process(pid)], "the container's is ready")
    up.engine.docker("exec", name, "true")
    assert ready in spares(up)
    wait_until(lambda: spares(up) == {ready}, "the exec's are gone", 20)


@pytest.mark.parametrize("victim", ["monitor", "creator", "first process"])
def test_a_spare_that_was_killed_costs_nothing_or_one_start(up: Tared, victim: str) -> None:
    """A dead spare monitor or creator isn't noticed; with its first process dead one start fails and says so."""
    (pid,) = spares(up)
    (creator,) = children(pid)
    (first,) = wait_until(lambda: children(creator), "the first process waits")
    chosen = {"monitor": pid, "creator": creator, "first process": first}[victim]
    os.kill(chosen, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{chosen}/cmdline").exists() or not _line(chosen), "it is dead")
    result = up.engine.run("@", "echo", "hello", check=False)
    if victim != "first process":
        assert result.out == "hello\n"
    else:
        assert result.out == "hello\n" or "was killed" in result.err or "unable to start" in result.err, result
    assert up.engine.run("@", "echo", "again").out == "again\n"


def test_a_forker_that_was_killed_is_replaced(up: Tared) -> None:
    """Who forks monitors is forked again by the next start; its monitors live on."""
    name = up.engine.start()
    ((forker,),) = (children(launcher) for launcher in up.launchers())
    os.kill(forker, signal.SIGKILL)
    wait_until(lambda: not _line(forker), "it is dead")
    ids = [str(up.engine.create({"Cmd": ["sleep", "1000"]}).json["Id"]) for _ in range(3)]
    assert {up.engine.api.request("POST", f"/containers/{one}/start").status for one in ids} == {204}
    assert up.engine.docker("exec", name, "echo", "still").out == "still\n"
    wait_until(lambda: spares(up), "a spare waits")


def _has_first_process(spare: int) -> bool:
    return any(children(creator) for creator in children(spare))


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
