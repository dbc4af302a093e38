"""Containers outlive the daemon and the launcher: what a new daemon on the same roots finds; all verbs work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.processes import is_alive
from support.tared import Tared

TICK = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done"]


@pytest.fixture
def up(daemon: Tared) -> Tared:
    """A running daemon of the test's own with the image."""
    daemon.start()
    daemon.engine.prepare()
    return daemon


def pid_of(engine: Engine, container: str) -> int:
    """The container's process."""
    return int(engine.inspect(container)["State"]["Pid"])


@pytest.mark.parametrize("launcher", [False, True], ids=["daemon", "daemon and launcher"])
def test_containers_go_on_after_kill_9(up: Tared, launcher: bool) -> None:
    """kill -9: programs go on and keep writing; the new daemon finds them; logs, exec, attach, top, stop work."""
    engine = up.engine
    ticking = engine.start(flags=["-p", "18180:80"], command=TICK)
    shell = engine.start(flags=["-i"], command=["sh", "-c", "while read l; do echo got-$l; done; exit 5"])
    pid = pid_of(engine, ticking)
    up.kill9(launcher=launcher)
    assert is_alive(pid)
    log = next(Path(up.data_root).rglob(f"*{ticking}*/*json.log"), None) or next(
        path for path in Path(up.data_root).rglob("*.log") if ticking in str(path)
    )
    size = log.stat().st_size
    wait_until(lambda: log.stat().st_size > size, "it goes on writing while there is no daemon")
    up.start()
    assert pid_of(engine, ticking) == pid and engine.inspect(ticking)["State"]["Running"]
    lines = engine.docker("logs", ticking).out.splitlines()
    assert lines == [f"tick {n}" for n in range(1, len(lines) + 1)], "a line is lost or doubled"
    assert engine.docker("exec", ticking, "echo", "in").out == "in\n"
    assert "tick" in engine.docker("top", ticking).out
    attached = engine.popen("attach", shell)
    assert attached.stdin is not None and attached.stdout is not None
    attached.stdin.write(b"word\n")
    attached.stdin.flush()
    assert attached.stdout.readline() == b"got-word\n"
    attached.kill()
    attached.communicate()
    engine.docker("stop", "-t", "0", ticking)
    assert engine.inspect(ticking)["State"]["ExitCode"] == 137
    engine.docker("start", ticking)
    assert engine.inspect(ticking)["State"]["Running"]


def test_terminal_survives(up: Tared) -> None:
    """A container with a terminal can be attached to again after the daemon was killed."""
    engine = up.engine
    name = engine.unique()
    with engine.terminal("run", "-it", "--name", name, engine.image, "sh") as terminal:
        terminal.expect(b"/ # ")
        terminal.send(b"value=kept\n")
        terminal.expect(b"/ # ")
        up.kill9()
        terminal.wait()
    up.start()
    with engine.terminal("attach", name) as terminal:
        terminal.send(b"\necho got-$value\n")
        terminal.expect(b"got-kept\r\n")
        terminal.send(b"exit 4\n")
        assert terminal.wait() == 4


@pytest.mark.parametrize("launcher", [False, True], ids=["daemon", "daemon and launcher"])
def test_exit_code_of_one_that_ended_meanwhile(up: Tared, launcher: bool) -> None:
    """What ended while there was no daemon has the right code, end time and log afterwards."""
    engine = up.engine
    container = engine.start(command=["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.02; done; echo last; exit 7"])
    killed = engine.start()
    pids = [pid_of(engine, container), pid_of(engine, killed)]
    root = Path(f"/proc/{pids[0]}/root/tmp/go")
    up.kill9(launcher=launcher)
    root.touch()
    os.kill(pids[1], signal.SIGKILL)
    for pid in pids:
        wait_until(lambda pid=pid: not is_alive(pid), "it ends")  # type: ignore[misc]
    up.start()
    state = engine.inspect(container)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 7)
    assert state["FinishedAt"] > state["StartedAt"]
    assert engine.docker("logs", container).out.endswith("last\n")
    assert engine.docker("wait", container).out == "7\n"
    state = engine.inspect(killed)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)


def test_rm_is_honoured_late(up: Tared) -> None:
    """A --rm container that ended while there was no daemon is removed when there is one again."""
    engine = up.engine
    container = engine.start(flags=["--rm"])
    pid = pid_of(engine, container)
    up.kill9()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "it ends")
    up.start()
    gone = f"/containers/{container}/json"
    wait_until(lambda: engine.api.request("GET", gone).status == 404, "it is removed")


def test_restart_policies_after_kill_9(up: Tared) -> None:
    """always and unless-stopped come back after they ended meanwhile; one that was stopped by hand stays down."""
    engine = up.engine
    always = engine.start(flags=["--restart", "always"])
    stopped = engine.start(flags=["--restart", "unless-stopped"])
    engine.docker("stop", "-t", "0", stopped)
    pid = pid_of(engine, always)
    up.kill9()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "it ends")
    up.start()
    wait_until(lambda: engine.inspect(always)["State"]["Running"], "always runs again")
    assert pid_of(engine, always) != pid
    assert not engine.inspect(stopped)["State"]["Running"]


def test_execs_survive(up: Tared) -> None:
    """An exec'd program goes on after kill -9 of the daemon."""
    engine = up.engine
    container = engine.start()
    engine.docker("exec", "-d", container, "sh", "-c", "while :; do echo x >> /tmp/out; sleep 0.05; done")
    wait_until(lambda: engine.docker("exec", container, "cat", "/tmp/out", check=False).out, "it writes")
    up.kill9(launcher=True)
    up.start()
    size = len(engine.docker("exec", container, "cat", "/tmp/out").out)
    wait_until(lambda: len(engine.docker("exec", container, "cat", "/tmp/out").out) > size, "it goes on")


def test_paused_survives(up: Tared) -> None:
    """A paused container is paused after kill -9, and can be unpaused."""
    engine = up.engine
    container = engine.start()
    engine.docker("pause", container)
    up.kill9()
    up.start()
    assert engine.inspect(container)["State"]["Status"] == "paused"
    engine.docker("unpause", container)
    assert engine.docker("exec", container, "echo", "on").out == "on\n"


def test_commit_cut_short_leaves_nothing_frozen(daemon: Tared) -> None:
    """A daemon that dies in the middle of a commit, which freezes the container, leaves it running all the same."""
    daemon.start(env={"TARE_FAULT": "storage.commit.finish:kill"})
    engine = daemon.engine
    engine.prepare()
    container = engine.start()
    engine.docker("commit", container, check=False)
    daemon.wait_dead()
    daemon.start()
    assert engine.inspect(container)["State"]["Status"] == "running"
    assert engine.docker("exec", container, "echo", "on").out == "on\n"


def test_network_survives(up: Tared) -> None:
    """Addresses and published ports are the same after kill -9; a new container gets another address."""
    engine = up.engine
    first = engine.start(flags=["-p", "18181:80"], command=["sh", "-c", "while :; do echo web | nc -l -p 80; done"])
    address = engine.inspect(first)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    up.kill9()
    up.start()
    assert engine.inspect(first)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == address
    code = "import socket; s=socket.create_connection(('127.0.0.1',18181),2); print(s.recv(9).decode(),end='')"

    def fetched() -> str:
        return engine.in_network(sys.executable, "-c", code, check=False).out

    wait_until(lambda: fetched() == "web\n", "the port answers")
    second = engine.start()
    assert engine.inspect(second)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] != address
    refused = engine.docker("run", "-d", "-p", "18181:80", engine.image, "sleep", "1", check=False)
    assert refused.code == 125 and "port is already allocated" in refused.err


def test_images_and_stopped_containers_survive(up: Tared) -> None:
    """What was acknowledged is there after kill -9: images, tags, containers, their files."""
    engine = up.engine
    container = engine.start(command=["sh", "-c", "echo data > /kept"])
    engine.exit_code(container)
    image = engine.docker("commit", container, "made:one").out.strip()
    engine.docker("tag", "made:one", "made:two")
    up.kill9()
    up.start()
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", "made:two").out.strip() == image
    assert engine.docker("run", "--rm", "made:one", "cat", "/kept").out == "data\n"
    assert engine.docker("diff", container).out == "A /kept\n"


def test_kill_9_again_and_again(up: Tared) -> None:
    """Ten kills in a row, some during start, lose nothing."""
    engine = up.engine
    container = engine.start()
    pid = pid_of(engine, container)
    for turn in range(10):
        up.kill9(launcher=turn % 2 == 0)
        up.start(wait=turn % 3 != 0)
    up.wait_ready()
    assert pid_of(engine, container) == pid


def test_monitor_that_dies_takes_its_container_along(up: Tared) -> None:
    """kill -9 of a container's monitor: the container is reported ended, not running for ever, and can be removed."""
    engine = up.engine
    container = engine.start()
    pid = pid_of(engine, container)
    status = Path(f"/proc/{pid}/status").read_text()
    monitor = int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1])
    assert monitor not in (1, up.pid)
    os.kill(monitor, signal.SIGKILL)
    wait_until(lambda: not engine.inspect(container)["State"]["Running"], "it is reported ended")
    engine.docker("rm", "-f", container)
    wait_until(lambda: not is_alive(pid), "its process is gone")


def test_two_daemons_on_one_root(up: Tared) -> None:
    """A second daemon on the same data root or exec root is refused with a clear word; the first isn't harmed."""
    other = [sys.executable, "-m", "tare.daemon.main", "-H", f"unix://{up.home}/other.sock", "--bridge", "none"]
    for roots in (
        ["--data-root", str(up.data_root), "--exec-root", f"{up.home}/run2"],
        ["--data-root", f"{up.home}/data2", "--exec-root", str(up.exec_root)],
    ):
        environment = {**os.environ, "TARE_TEST_MARK": up.mark}
        done = subprocess.run([*other, *roots], capture_output=True, text=True, timeout=100, env=environment)
        assert done.returncode != 0 and "another tared uses" in done.stderr
    assert up.engine.api.request("GET", "/_ping").status == 200


def test_side_by_side(up: Tared) -> None:
    """Two daemons with own roots don't see each other; both publish ports; one's end leaves the other alone."""
    with Tared() as other:
        other.engine.prepare()
        name = "same-name"
        first = up.engine.start(flags=["--name", name, "-p", "18182:80"])
        second = other.engine.start(flags=["--name", name, "-p", "18183:80"])
        assert up.engine.containers() == [first] and other.engine.containers() == [second]
        refused = other.engine.docker("run", "-d", "-p", "18182:80", other.engine.image, "true", check=False)
        assert refused.code == 125
        assert up.engine.docker("exec", name, "echo", "a").out == "a\n"
    assert up.engine.inspect(first)["State"]["Running"]
    up.engine.docker("exec", first, "ping", "-c", "1", "-W", "2", up.bip.split("/")[0])
