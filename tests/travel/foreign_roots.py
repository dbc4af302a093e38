"""Engines under other distributions' roots: Debian's suites, each with mounts and network of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.deadline import wait_until
from support.engine import Engine
from support.processes import kill
from support.rawhttp import RawClient
from tare.cli.bootstrap import default_mirror

SOURCES = Path(__file__).resolve().parents[2] / "src" / "tare"
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
# The new root becomes the root of a mount namespace, not a chroot's: containers pivot away from it (man 2 pivot_root).
ENTER = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
for place in sys dev; do mount --rbind "/$place" "$place"; done
mount -t proc proc proc
ip link set lo up
pivot_root . mnt
umount -l /mnt
exec /usr/bin/env -i PATH=/usr/bin:/usr/sbin:/bin:/sbin PYTHONPATH=/opt "TARE_TEST_MARK=$2" \\
    python3 -m tare.daemon.main --data-root /var/lib/tare --exec-root /run/tare --pidfile /run/tared.pid \\
    -H unix:///run/tare.sock --bridge "$2" --bip 10.99.0.1/24 --cgroup-parent "/$2"
"""


def make_root(suite: str, directory: Path, cache: Path) -> Path:
    """A root file system with a Python, the libraries that the engine needs, and this tree."""
    root = directory / suite
    cache.mkdir(parents=True, exist_ok=True)
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--include=python3,libseccomp2,iproute2"]
    argv += ["--skip=download/empty", "--skip=essential/unlink"]
    argv += [
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives/"',
        f"--setup-hook=sync-in {cache} /var/cache/apt/archives/",
    ]
    argv += [f"--customize-hook=sync-out /var/cache/apt/archives {cache}", suite, str(root), default_mirror("debian")]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=400)
    wheels = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    wheels += ["--python-version", PYTHONS[suite], "--implementation", "cp", "--target", str(root / "opt")]
    wheels += ["msgspec", "httptools", "zstandard", "pyseccomp"]
    subprocess.run(wheels, check=True, capture_output=True, timeout=200)
    shutil.copytree(SOURCES, root / "opt" / "tare", ignore=shutil.ignore_patterns("__pycache__"))
    return root


class RootedEngine:
    """A tared whose root is another distribution's."""

    def __init__(self, root: Path, mark: str) -> None:
        self.root = root
        self.mark = mark
        self.socket = root / "run" / "tare.sock"
        self.log = root / "tared.log"
        self.engine = Engine("tare", self.socket)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--net", "sh", "-c", ENTER, "sh", str(root), mark],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, "the engine under the other root answers", 30)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return RawClient(str(self.socket), check=False).request("GET", "/_ping", timeout=5).status == 200
        except (OSError, EOFError):
            return False

    def stop(self) -> None:
        """Containers, then the engine, then what it had."""
        try:
            self.engine.clean()
            self.process.terminate()
            self.process.wait(20)
        finally:
            if self.process.poll() is None:
                kill(self.process.pid)
            shutil.rmtree(self.root, ignore_errors=True)


def cache_directory() -> Path:
    """Where packages are kept from one run to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tare" / "test-roots"
