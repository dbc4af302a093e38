"""Ways to engines that are elsewhere: certificates, a tared behind TLS, an `ssh` that stays on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from support.engine import Result, clean_environment, run
from support.tared import Tared

TARE = [sys.executable, "-m", "tare.cli.main"]
FILES = {"cacert": "ca.pem", "cert": "server-cert.pem", "key": "server-key.pem"}
# Like sshd: the words after the machine become one line for a shell there. What it was told is kept beside it.
SSH = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/ssh.log"
[ "$FAKE_SSH" = broken ] && { echo "ssh: no route to host" >&2; exit 255; }
while [ "$1" != -- ]; do shift; done
shift 2
exec sh -c "$*"
"""


def issue(directory: Path, *args: str, check: bool = True) -> Result:
    """Runs `tare cert`."""
    return run([*TARE, "cert", "-o", str(directory), *args], check=check)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class TlsEngine:
    """A tared behind mutual TLS: its port and the certificates."""

    def __init__(self, daemon: Tared, port: int, certificates: Path) -> None:
        self.daemon = daemon
        self.image = daemon.engine.image
        self.port = port
        self.certificates = certificates
        self.address = f"tcp://localhost:{port}"

    def environment(self, **changes: str) -> dict[str, str]:
        """What a client needs to know."""
        found = {"DOCKER_HOST": self.address, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self.certificates)}
        return {name: value for name, value in {**found, **changes}.items() if value}


def write_program(path: Path, text: str) -> None:
    """An executable script."""
    path.write_text(text)
    path.chmod(0o755)


def over_ssh(ssh: Path, address: str, **more: str) -> dict[str, str]:
    """The environment of a client behind ssh."""
    return clean_environment({"PATH": f"{ssh}:{os.environ['PATH']}", "DOCKER_HOST": address, **more})


def call(argv: list[str], environment: dict[str, str], input: bytes = b"", timeout: float = 40) -> Result:
    """Runs a client to its end."""
    done = subprocess.run(argv, env=environment, input=input, capture_output=True, timeout=timeout)
    return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
