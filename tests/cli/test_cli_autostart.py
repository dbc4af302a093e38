"""`tare` starts the engine when nobody listens on the default socket. A small stand-in plays the engine: what is tested
is finding, starting, waiting, racing and failing, not the engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import wait_until

TARE = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from tare.cli.main import main; main()"
STAND_IN = """#!{python}
import fcntl, os, socket, sys
root = os.path.dirname(os.path.abspath(__file__))
lock = open(os.path.join(root, "lock"), "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit("another engine has this data root")
if os.path.exists(os.path.join(root, "broken")):
    sys.exit("the disk is full of eels")
with open(os.path.join(root, "started"), "a") as file:
    file.write(f"{{os.getpid()}} {{os.getsid(0)}} {{len(sys.argv)}} {{sorted(os.listdir('/proc/self/fd'))}}\\n")
path = "/run/tare/tare.sock"
os.makedirs("/run/tare", exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
while True:
    plug, _ = listener.accept()
    while b"\\r\\n\\r\\n" in (request := plug.recv(65536)):
        body = b"" if request.startswith(b"HEAD") else b"[]"
        head = b"HTTP/1.1 200 OK\\r\\nApi-Version: 1.50\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        plug.sendall(head + body)
    plug.close()
"""


class Place:
    """A machine's /run and /var/log of the test's own (a mount namespace), and a bin folder with tare and tared."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory
        (directory / "tared").write_text(STAND_IN.format(python=sys.executable))
        (directory / "tared").chmod(0o755)
        (directory / "tare").write_text(f"#!{sys.executable}\nfrom tare.cli.main import main\nmain()\n")
        (directory / "tare").chmod(0o755)
        script = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && echo ready && exec cat"
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"ready\n"

    def command(self, *arguments: str) -> list[str]:
        # The interpreter's folder has a real tared: run tare's script, whose own folder has the stand-in.
        return ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--", str(self.bin / "tare"), *arguments]

    def popen(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TARE_", "DOCKER_"))}
        environment = {**kept, "TARE_DAEMON": str(self.bin / "tared"), **variables}
        return subprocess.Popen(
            self.command(*arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        process = self.popen(*arguments, **variables)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    @property
    def started(self) -> list[str]:
        path = self.bin / "started"
        return path.read_text().splitlines() if path.exists() else []

    def stop(self) -> None:
        for line in self.started:
            try:
                os.kill(int(line.split()[0]), signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.holder.kill()
        self.holder.wait()
        assert self.holder.stdin is not None and self.holder.stdout is not None
        self.holder.stdin.close()
        self.holder.stdout.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare for a /run of its own")
    made = Place(tmp_path)
    yield made
    made.stop()


def test_it_is_started_once_and_said_once(place: Place) -> None:
    """The first command starts the engine and says so on stderr; the second finds it and says nothing."""
    code, out, err = place.run("ps", "-q")
    assert (code, out) == (0, "")
    pid, session, count, descriptors = place.started[0].split(None, 3)
    assert err == f"tare: started tared (pid {pid}); TARE_AUTOSTART=0 turns this off\n"
    assert count == "1"
    assert place.run("ps", "-q") == (0, "", "")
    assert len(place.started) == 1
    assert session != str(os.getsid(0))
    # 0, 1, 2, its lock, and the two that this look at /proc and the file of the record take
    assert descriptors == "['0', '1', '2', '3', '4', '5']"


def test_the_started_engine_is_nobodys_child(place: Place) -> None:
    """It outlives the command, in a session of its own, with its output in a log."""
    place.run("ps")
    pid = int(place.started[0].split()[0])
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent != os.getpid()
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/2").endswith("/var/log/tared.log")


def test_two_at_once_end_with_one_engine(place: Place) -> None:
    """Commands that start together all work, and one engine is left."""
    commands = [place.popen("ps", "-q") for _ in range(4)]
    for command in commands:
        out, _err = command.communicate(timeout=100)
        assert (command.returncode, out) == (0, "")
    assert len(place.started) == 1


def test_it_can_be_turned_off(place: Place) -> None:
    """With TARE_AUTOSTART=0 nothing is started, and the message names the socket."""
    code, _out, err = place.run("ps", TARE_AUTOSTART="0")
    assert code == 1
    assert err == "Cannot connect to the Tare daemon at unix:///run/tare/tare.sock. Is tared running?\n"
    assert place.started == []


@pytest.mark.parametrize("how", ["flag", "TARE_HOST", "DOCKER_HOST"])
def test_an_address_that_was_given_is_never_started(place: Place, how: str) -> None:
    """Who names an engine gets that one or an error."""
    host = "unix:///run/other.sock"
    code, _out, err = place.run("-H", host, "ps") if how == "flag" else place.run("ps", **{how: host})
    assert (code, err) == (1, f"Cannot connect to the Tare daemon at {host}. Is tared running?\n")
    assert place.started == []


def test_what_an_engine_says_before_it_dies_is_shown(place: Place) -> None:
    """If it can't start, the end of its log is shown and the exit code is 1."""
    (place.bin / "broken").touch()
    code, _out, err = place.run("ps")
    assert code == 1
    assert "tare started tared, but it exited. The end of its log (/var/log/tared.log):" in err
    assert "the disk is full of eels" in err


def test_a_stale_socket_is_no_engine(place: Place) -> None:
    """A socket file that nobody listens on (an engine that was killed) leads to a start as well."""
    script = "import os, socket; os.mkdir('/run/tare'); socket.socket(socket.AF_UNIX).bind('/run/tare/tare.sock')"
    enter = ["nsenter", f"--mount=/proc/{place.holder.pid}/ns/mnt", "--"]
    subprocess.run([*enter, sys.executable, "-c", script], check=True)
    (place.bin / "tared").write_text(
        (place.bin / "tared").read_text().replace("listener.bind", "os.unlink(path)\nlistener.bind")
    )
    code, _out, err = place.run("ps", "-q")
    assert code == 0, err
    wait_until(lambda: len(place.started) == 1, "the engine has started")
