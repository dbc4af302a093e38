"""A `tared` of the tests' own: own data root, exec root, bridge and subnet, so that many run side by side."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.deadline import PATIENCE, wait_until
from support.engine import Engine, clean_environment
from support.leftovers import alias
from support.processes import children, end_all, is_alive, kill, marked
from support.rawhttp import RawClient


def _wipe(directory: Path) -> None:
    """Deletes a tree, also one that is deeper than Python's stack: layers of hostile archives are."""
    subprocess.run(["rm", "-rf", "--", str(directory)], capture_output=True)


def is_runnable() -> bool:
    """Whether this tree has a daemon."""
    try:
        return importlib.util.find_spec("tare.daemon.main") is not None
    except ModuleNotFoundError:
        return False


def _subnet() -> str:
    """A /24 that no route of this machine uses; returns its gateway with prefix length."""
    used = {line.split()[1] for line in Path("/proc/net/route").read_text().splitlines()[1:]}
    while True:
        second, third = 64 + secrets.randbelow(128), secrets.randbelow(256)
        if f"00{third:02X}{second:02X}0A" not in used:
            return f"10.{second}.{third}.1/24"


class Tared:
    """Starts, kills, restarts and stops one daemon below /tmp/tt-<mark>."""

    def __init__(self, *args: str, env: Mapping[str, str] | None = None, bridge: bool = True) -> None:
        self.mark = f"tt{secrets.token_hex(3)}"
        self.home = Path(f"/tmp/{self.mark}")
        self.home.mkdir(mode=0o755)
        self.data_root = self.home / "data"
        self.exec_root = self.home / "run"
        self.socket = self.home / "tare.sock"
        self.pidfile = self.home / "tared.pid"
        self.log = self.home / "tared.log"
        self.bip = _subnet()
        self.args = list(args)
        self.env = dict(env or {})
        self.bridge = bridge
        self.process: subprocess.Popen[bytes] | None = None
        self.engine = Engine("tare", self.socket)
        self._armings = itertools.count()
        self.network_ids: set[str] = set()
        """Of its networks at its last stop: links bear them in their names and aliases."""

    def make_armable(self) -> None:
        """Before its start: `arm` works from now on."""
        self.env["TARE_FAULT_FILE"] = str(self.home / "fault")
        self.arm("")

    def arm(self, spec: str) -> None:
        """From now on this is to happen (see tare.faults), in any process of the daemon's; "" for nothing."""
        fault = self.home / "fault"
        new = fault.with_suffix(".new")
        new.write_text(f"{spec}#{next(self._armings)}")
        new.rename(fault)
        (self.home / "fault.passed").write_text("")

    def passed(self) -> list[str]:
        """Fault points that were passed since the last arming, each once, in order."""
        return list(dict.fromkeys((self.home / "fault.passed").read_text().split()))

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self.process is not None
        return self.process.pid

    def argv(self) -> list[str]:
        """The daemon's command line."""
        network = ["--bridge", self.mark, "--bip", self.bip] if self.bridge else ["--bridge", "none"]
        paths = ["--data-root", str(self.data_root), "--exec-root", str(self.exec_root), "--pidfile", str(self.pidfile)]
        network += ["--cgroup-parent", f"/{self.mark}"]
        return [sys.executable, "-m", "tare.daemon.main", *paths, "-H", f"unix://{self.socket}", *network, *self.args]

    def start(self, *, env: Mapping[str, str] | None = None, wait: bool = True) -> Tared:
        """Starts the daemon. wait: returns once it answers; AssertionError with its log if it doesn't."""
        environment = clean_environment({"TARE_TEST_MARK": self.mark, **self.env, **(env or {})})
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout_s: float = 15) -> None:
        """Returns once the daemon answers _ping."""

        def answers() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"tared exited {self.process.returncode}:\n{self.log_tail()}")
            try:
                return RawClient(str(self.socket), check=False).request("GET", "/_ping", timeout=5).status == 200
            except (OSError, EOFError):
                return False

        try:
            wait_until(answers, "tared answers _ping", timeout_s)
        except AssertionError as error:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
            raise AssertionError(f"{error}\n{self.log_tail()}") from None

    def log_tail(self, lines: int = 60) -> str:
        """The end of the daemon's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def launchers(self) -> list[int]:
        """Processes that the daemon started and that are its direct children."""
        return children(self.pid)

    def kill9(self, *, launcher: bool = False) -> None:
        """Kills the daemon (and its direct children) as the kernel's OOM killer would."""
        victims = self.launchers() if launcher else []
        kill(self.pid)
        for victim in victims:
            kill(victim)
        assert self.process is not None
        self.process.wait(10 * PATIENCE)
        for victim in victims:
            wait_until(lambda victim=victim: not is_alive(victim), f"process {victim} is gone")  # type: ignore[misc]

    def wait_dead(self, timeout_s: float = 15) -> int:
        """Waits until the daemon has ended by itself; returns its exit status (negative: signal)."""
        assert self.process is not None
        return self.process.wait(timeout_s * PATIENCE)

    def restart(self, *, env: Mapping[str, str] | None = None) -> Tared:
        """Stops the daemon if it runs, and starts it anew on the same roots."""
        self.terminate()
        return self.start(env=env)

    def terminate(self, timeout_s: float = 20) -> int | None:
        """SIGTERM, and waits for the end; containers are left as they are."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"tared did not end on SIGTERM:\n{self.log_tail()}") from None

    def stop(self) -> None:
        """Removes all containers by the API, ends the daemon and every process of its own, wipes its roots."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.engine.clean()
            self.terminate()
        finally:
            self.network_ids |= self._stored_networks()
            end_all(self.mark)
            unmount_below(self.home)
            _wipe(self.home)

    def _stored_networks(self) -> set[str]:
        """The ids of all networks that it keeps."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.data_root}/tare.db?mode=ro", uri=True)) as database:
                return {row[0] for row in database.execute("SELECT network_id FROM network_networks")}
        except sqlite3.Error:
            return set()  # it never came so far

    def scrub(self) -> None:
        """Takes away by force what a failed test left in the kernel; for after the leftovers check, never before."""
        for folder in [*Path("/sys/fs/cgroup").glob(f"*/{self.mark}"), Path("/sys/fs/cgroup") / self.mark]:
            for path, _, _ in os.walk(folder, topdown=False):
                for pid in _pids(Path(path) / "cgroup.procs"):
                    kill(pid)
        end_all(self.mark)
        for folder in [*Path("/sys/fs/cgroup").glob(f"*/{self.mark}"), Path("/sys/fs/cgroup") / self.mark]:
            for path, _, _ in os.walk(folder, topdown=False):
                wait_until(lambda path=path: _removed(path), f"{path} is empty")  # type: ignore[misc]
        unmount_below(self.home)
        _wipe(self.home)
        tables = [["nft", "delete", "table", family, f"tare_{self.mark}"] for family in ("inet", "bridge")]
        links = [name for name in os.listdir("/sys/class/net") if name == self.mark or alias(name) in self.network_ids]
        for argv in (*(["ip", "link", "del", name] for name in links), *tables):
            if shutil.which(argv[0]):
                subprocess.run(argv, capture_output=True)

    def processes(self) -> dict[int, str]:
        """All living processes of this daemon, itself included."""
        return marked(self.mark)

    def __enter__(self) -> Tared:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _pids(file: Path) -> list[int]:
    try:
        return [int(word) for word in file.read_text().split()]
    except OSError:
        return []


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def unmount_below(path: Path) -> None:
    """Unmounts whatever is mounted at or below path, the last mounted first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()]
    for point in reversed(points):
        if Path(point) == path or path in Path(point).parents:
            subprocess.run(["umount", "-l", point], check=False)


def marks_of(daemons: Sequence[Tared]) -> list[str]:
    """What things of these daemons bear in their names."""
    return [
        mark for daemon in daemons for mark in (daemon.mark, daemon.bip.rsplit(".", 1)[0] + ".", *daemon.network_ids)
    ]
