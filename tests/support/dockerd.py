"""A real dockerd of the tests' own, to hold every expectation against; in its own network namespace and data root."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from support.deadline import wait_until
from support.engine import Engine, clean_environment
from support.processes import end_all
from support.rawhttp import RawClient
from support.tared import unmount_below

REUSE = "TARE_TEST_DOCKERD"
ROOT = Path(os.environ.get("TARE_PEER_ROOT", "/"))
"""Where the real Docker's programs are: below usr/sbin and usr/bin there. Its libraries are this machine's."""
DOCKERD = ROOT / "usr/sbin/dockerd"
# Brings lo up in the new namespace without iproute2 (man 7 netdevice), then becomes dockerd.
BOOT = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
os.execv(sys.argv[1], sys.argv[1:])
"""


def is_available() -> bool:
    """Whether a dockerd can be had."""
    return bool(os.environ.get(REUSE)) or (DOCKERD.exists() and shutil.which("unshare") is not None)


class Dockerd:
    """Starts a dockerd below /var/tmp/tt-<mark>, or takes the one that TARE_TEST_DOCKERD names."""

    def __init__(self) -> None:
        self.reused = os.environ.get(REUSE, "")
        self.mark = f"tt{secrets.token_hex(3)}"
        self.home = Path(f"/var/tmp/{self.mark}")
        self.log = self.home / "dockerd.log"
        self.process: subprocess.Popen[bytes] | None = None
        path = Path(self.reused.removeprefix("unix://")) if self.reused else self.home / "docker.sock"
        self.engine = Engine("docker", path, shared=bool(self.reused))
        self._cgroups_before = set(_docker_cgroups())

    def start(self) -> Dockerd:
        """Starts it (or finds it) and returns once it answers."""
        if self.reused:
            self.engine.enter = ["nsenter", f"--net=/proc/{_owner(self.engine.socket)}/ns/net", "--"]
            return self
        self.home.mkdir(mode=0o755)
        options = ["--data-root", str(self.home / "data"), "--exec-root", str(self.home / "exec")]
        options += ["--pidfile", str(self.home / "docker.pid"), "-H", f"unix://{self.engine.socket}"]
        options += ["--bip", "172.30.0.1/24", "--cgroup-parent", f"/{self.mark}", "--shutdown-timeout", "3"]
        options += ["--add-runtime", f"tare={Path(sys.executable).parent / 'tare-runtime'}"]
        argv = ["unshare", "--net", sys.executable, "-c", BOOT, str(DOCKERD), *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), start_new_session=True
            )
        self.engine.enter = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--"]
        wait_until(self._answers, "dockerd answers _ping", 60)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"dockerd exited {self.process.returncode}:\n{self.log_tail()}")
        try:
            return RawClient(str(self.engine.socket), check=False).request("GET", "/_ping", timeout=5).status == 200
        except OSError:
            return False

    def log_tail(self, lines: int = 30) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """Removes all containers, ends dockerd and its containerd, wipes all that they made."""
        try:
            self.engine.clean()
            self.engine.clean_images()
            if self.reused:
                self.engine.api.request("DELETE", f"/images/{self.engine.image}", query={"force": "1"}, check=False)
        finally:
            if self.process is not None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(60)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
            if not self.reused:
                end_all(self.mark)
                unmount_below(self.home)
                shutil.rmtree(self.home, ignore_errors=True)
                self._remove_cgroups()

    def _remove_cgroups(self) -> None:
        """dockerd before 23 leaves its parent cgroups in every hierarchy."""
        ours = [path for path in _docker_cgroups() if path not in self._cgroups_before]
        for top in [*ours, *Path("/sys/fs/cgroup").glob(f"*/{self.mark}"), Path(f"/sys/fs/cgroup/{self.mark}")]:
            for path, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    pass


def _environment() -> dict[str, str]:
    """Its own containerd, runc and docker-proxy are found before this machine's."""
    path = os.environ.get("PATH", os.defpath)
    return clean_environment({"PATH": f"{ROOT / 'usr/sbin'}:{ROOT / 'usr/bin'}:{path}"} if Path("/") != ROOT else {})


def _docker_cgroups() -> list[Path]:
    return [*Path("/sys/fs/cgroup").glob("*/docker"), *Path("/sys/fs/cgroup").glob("docker")]


def _owner(path: Path) -> int:
    """The process that listens on a unix socket (man 7 unix, SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
