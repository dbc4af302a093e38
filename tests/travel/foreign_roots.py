"""Engines under other distributions' roots, each with mounts, network, Python and libraries of its own.

What the roots are, and how they are made, is in root_makers.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from support.deadline import wait_until
from support.engine import Engine
from support.processes import kill
from support.rawhttp import RawClient

# The new root becomes the root of a mount namespace, not a chroot's: containers pivot away from it (man 2 pivot_root).
# Whoever holds the namespaces is no parent of the engine's, which may thus die and come again.
HOLD = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
for place in sys dev; do mount --rbind "/$place" "$place"; done
mount -t proc proc proc
[ -z "$2" ] || mount -t tmpfs tmpfs run
ip link set lo up
pivot_root . mnt
umount -l /mnt
echo ready
exec /bin/sleep 100000
"""


@dataclass(frozen=True)
class Root:
    """A root file system with an engine in it.

    program: what starts tared. environment: what its Python needs. run_tmpfs: whether /run is one.
    """

    path: Path
    program: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    run_tmpfs: bool = False

    def environ(self) -> list[str]:
        """The words for env(1)."""
        return ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", *(f"{key}={value}" for key, value in self.environment.items())]

    def run(self, *argv: str, timeout: float = 120) -> str:
        """Runs a program inside, without namespaces of its own; returns what it printed."""
        entered = ["chroot", str(self.path), "/usr/bin/env", "-i", *self.environ(), *argv]
        done = subprocess.run(entered, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout


class RootedEngine:
    """A tared whose root is another distribution's."""

    def __init__(self, root: Root, mark: str) -> None:
        self.root = root
        self.mark = mark
        self.socket = root.path / "srv" / "tare.sock"
        self.log = root.path / "tared.log"
        self.engine = Engine("tare", self.socket)
        self.process: subprocess.Popen[bytes] | None = None
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", HOLD, "sh", str(root.path), "tmpfs" if root.run_tmpfs else ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"ready\n"
        self.engine.enter = ["nsenter", "--target", str(self.holder.pid), "--net"]
        self.start()

    def start(self) -> None:
        """Starts tared, and waits until it answers."""
        entered = ["nsenter", "--target", str(self.holder.pid), "--mount", "--net", "/usr/bin/env", "-i"]
        flags = ["--data-root", "/var/lib/tare", "--exec-root", "/run/tare", "--pidfile", "/run/tared.pid"]
        flags += ["-H", "unix:///srv/tare.sock", "--bridge", self.mark, "--bip", "10.99.0.1/24"]
        flags += ["--cgroup-parent", f"/{self.mark}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*entered, *self.root.environ(), f"TARE_TEST_MARK={self.mark}", *self.root.program, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, "the engine under the other root answers", 30)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return RawClient(str(self.socket), check=False).request("GET", "/_ping", timeout=5).status == 200
        except (OSError, EOFError):
            return False

    def kill(self) -> None:
        """kill -9 of tared: containers and the root's namespaces stay."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def stop(self) -> None:
        """Containers, then the engine, then what it had."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.engine.clean()
                self.process.terminate()
                self.process.wait(60)
        finally:
            for one in (self.process, self.holder):
                if one is not None and one.poll() is None:
                    kill(one.pid)
            self.holder.wait(60)
            shutil.rmtree(self.root.path, ignore_errors=True)


def cache_directory() -> Path:
    """Where packages, and what was built, are kept from one run to the next."""
    if given := os.environ.get("TARE_ROOT_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tare" / "test-roots"
