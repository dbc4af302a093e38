"""What a guided tour is made of: commands that are shown, run and checked; progress lines; engines of its own.

Standard library only; knows nothing of what the tour shows, and never touches an engine that it did not start.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TTY = sys.stdout.isatty()
WIDTH = min(shutil.get_terminal_size((100, 24)).columns, 110)


class StepFailed(Exception):
    """A command of the tour did not give what it should."""


def paint(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if TTY and "NO_COLOR" not in os.environ else text


class Progress:
    """One line that changes in place on a terminal; elsewhere a line each few seconds, so that a log stays short."""

    def __init__(self, text: str) -> None:
        self.text, self.detail = text, ""
        self.began = time.monotonic()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._turn, daemon=True)

    def __enter__(self) -> Progress:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()
        if TTY:
            print("\r\033[K", end="", flush=True)

    def _turn(self) -> None:
        turn = 0
        # Half a second of patience: a quick command needs no progress line.
        while not self.stopped.wait((0.1 if turn else 0.5) if TTY else 10.0):
            turn += 1
            line = f"{self.text} {self.detail} ({time.monotonic() - self.began:.0f} s)"
            if TTY:
                print(f"\r\033[K   {paint('|/-'[turn % 3], '36')} {line[: WIDTH - 6]}", end="", flush=True)
            else:
                print(f"     {line}", flush=True)


class Tour:
    """Prints chapters and explanations, runs commands, and keeps what the commands' environment is."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.chapters = self.commands = 0
        self.began = time.monotonic()

    def chapter(self, title: str, *explanation: str) -> None:
        self.chapters += 1
        print(f"\n{paint(f'{self.chapters}. {title}', '1;36')}", flush=True)
        self.explain(*explanation)

    def explain(self, *lines: str) -> None:
        for line in lines:
            print(f"   {line}".rstrip(), flush=True)

    def show(
        self,
        command: str,
        *,
        code: int = 0,
        gives: str | None = None,
        display: str | None = None,
        limit: int = 14,
        deadline_s: float = 120,
        fold: Callable[[str], str] | None = None,
    ) -> str:
        """Shows `command`, runs it in a shell, shows what it printed, and checks its exit code and its output.

        gives: a text that the output must hold. display: what to show in place of the command, where it is long.
        limit: how many lines of output to show. deadline_s: when it is killed, and has failed.
        fold: turns a line of output into progress instead of showing it.
        """
        print(f"\n   {paint('$', '32')} {paint(display or command, '1')}", flush=True)
        self.commands += 1
        process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        late = threading.Timer(deadline_s, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        lines: list[str] = []
        try:
            with Progress("…") as progress:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.append(line.rstrip("\n"))
                    if fold is not None:
                        progress.detail = fold(lines[-1])
                status = process.wait()
        finally:
            expired = not late.is_alive()
            late.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if expired:
            raise StepFailed(f"`{display or command}` did not end in {deadline_s:.0f} s\n" + "\n".join(lines[-20:]))
        shown = [] if fold is not None and status == code else lines
        for line in shown[:limit]:
            print(f"     {line}"[: WIDTH * 2].rstrip(), flush=True)
        if len(shown) > limit:
            print(paint(f"     … and {len(shown) - limit} more lines", "2"), flush=True)
        output = "\n".join(lines)
        if status != code:
            raise StepFailed(
                f"`{display or command}` ended with exit code {status}, not {code}\n" + "\n".join(lines[-20:])
            )
        if gives is not None and gives not in output:
            raise StepFailed(f"`{display or command}` did not print {gives!r}")
        return output

    def quiet(self, command: str) -> str:
        """Runs a command that is not part of the story; returns what it printed on stdout, whatever its exit code."""
        done = subprocess.run(
            ["timeout", "60", "bash", "-c", command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()


class Engine:
    """One `tared` of the tour's own: started in the background, found again after a crash through its pid file."""

    def __init__(self, data_root: Path, exec_root: Path, bridge: str, bip: str) -> None:
        self.data_root, self.exec_root, self.bridge, self.bip = data_root, exec_root, bridge, bip
        self.socket, self.pidfile = exec_root / "tare.sock", exec_root / "tared.pid"
        self.host = f"unix://{self.socket}"
        self.log = data_root.parent / f"{data_root.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def argv(self) -> list[str]:
        places = ["--data-root", self.data_root, "--exec-root", self.exec_root, "--pidfile", self.pidfile]
        return ["tared", *map(str, places), "-H", self.host, "--bridge", self.bridge, "--bip", self.bip]

    @property
    def command(self) -> str:
        return shlex.join(self.argv)

    def start(self, environment: dict[str, str], deadline_s: float = 60) -> None:
        """Starts the engine and waits until it answers."""
        self.data_root.mkdir(parents=True, exist_ok=True)
        self.exec_root.mkdir(parents=True, exist_ok=True, mode=0o711)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for the tour, which then stops the engine itself
            )
        with Progress("waiting for tared"):
            self.wait_ready(deadline_s)

    def wait_ready(self, deadline_s: float) -> None:
        end = time.monotonic() + deadline_s
        while not self.answers():
            if self.process is not None and self.process.poll() is not None:
                raise StepFailed(f"tared ended with exit code {self.process.returncode}\n{self.last_words()}")
            if time.monotonic() > end:
                raise StepFailed(f"tared does not answer on {self.socket}\n{self.last_words()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether the engine answers `GET /_ping`."""
        connection = http.client.HTTPConnection("localhost", timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(str(self.socket))
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        return False

    def last_words(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return ""

    def pid(self) -> int | None:
        """The running engine's process id, if the pid file names a process that is this engine."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.pidfile.read_text())
            # A pid is reused in time: only a process that was started for our folder is ours.
            if os.fsencode(self.exec_root) in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def kill(self) -> None:
        """As a crash would: SIGKILL, at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Asks the engine to end, and waits for it."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals, deadline_s: float = 30) -> None:
        # The pid file is written when the engine answers; before that, only the one who started it knows it.
        pid = self.process.pid if self.process is not None and self.process.poll() is None else self.pid()
        if pid is not None:
            os.kill(pid, number)
        end = time.monotonic() + deadline_s
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(deadline_s)
            self.process = None
        while pid is not None and Path(f"/proc/{pid}").exists():
            if time.monotonic() > end:
                raise StepFailed(f"tared (process {pid}) does not end\n{self.last_words()}")
            time.sleep(0.02)

    def drop_link(self) -> None:
        """Deletes the bridge: the engine keeps it for its next start, and this engine has none."""
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True)


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Waits until no other tour runs in this checkout."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another demo runs in this folder; waiting for it to end …", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
