"""A real docker-registry (distribution) of the tests' own on loopback, with or without passwords and TLS."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

from support.deadline import wait_until
from support.engine import run

USER, PASSWORD = "me", "secret"
ACCEPT = ", ".join(
    f"application/vnd.{name}+json"
    for name in (
        "oci.image.manifest.v1",
        "oci.image.index.v1",
        "docker.distribution.manifest.v2",
        "docker.distribution.manifest.list.v2",
    )
)


def is_installed() -> bool:
    """Whether there is one to start."""
    return shutil.which("docker-registry") is not None


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Registry:
    """Starts a registry. enter: a command prefix that enters the network namespace it listens in.

    certificates: a directory with server-cert.pem and server-key.pem, for TLS. passwords: whether it asks for one.
    """

    def __init__(
        self,
        root: Path,
        *,
        enter: Sequence[str] = (),
        passwords: bool = False,
        certificates: Path | None = None,
        port: int = 0,
        data: Path | None = None,
    ) -> None:
        self.root = root
        self.port = port or free_port()
        self.host = f"localhost:{self.port}"
        self.enter = list(enter)
        self.data = data or root / "data"
        self._passwords = passwords
        self._certificates = certificates
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Registry:
        """Returns once it listens."""
        self.root.mkdir(parents=True, exist_ok=True)
        http: dict[str, Any] = {"addr": f"127.0.0.1:{self.port}"}
        if self._certificates is not None:
            http["tls"] = {
                "certificate": str(self._certificates / "server-cert.pem"),
                "key": str(self._certificates / "server-key.pem"),
            }
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.data)}, "delete": {"enabled": True}},
            "http": http,
        }
        if self._passwords:
            made = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, check=True).stdout
            (self.root / "passwords").write_bytes(made)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.root / "passwords")}}
        file = self.root / "config.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.enter, "docker-registry", "serve", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._listens, f"a registry listens on {self.host}", 15)
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.root / "log").read_text()[-2000:]
        probe = [*self.enter, "curl", "-sk", "-o", "/dev/null", f"{self._scheme}://{self.host}/v2/"]
        if self.enter:
            return run(probe, check=False).code == 0
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2):
                return True
        except OSError:
            return False

    @property
    def _scheme(self) -> str:
        return "https" if self._certificates is not None else "http"

    def stop(self) -> None:
        """Ends it, and forgets all that it had unless that is elsewhere."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def reference(self, name: str) -> str:
        """An image's name at this registry."""
        return f"{self.host}/{name}"

    # ── looking past every client ────────────────────────────────────────────────────────────────────────────────

    def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a request to this registry, without TLS or passwords."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        if self._certificates is not None:
            connection = HTTPSConnection("127.0.0.1", self.port, timeout=60, context=ssl._create_unverified_context())
        try:
            connection.request(method, path, headers={"Accept": ACCEPT})
            answer: HTTPResponse = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def manifest(self, name: str, tag: str) -> Any:
        """A manifest's document."""
        status, _, body = self.get(f"/v2/{name}/manifests/{tag}")
        assert status == 200, body
        return json.loads(body)

    def digest(self, name: str, tag: str) -> str:
        """What the registry says a tag's digest is."""
        return self.get(f"/v2/{name}/manifests/{tag}", "HEAD")[1]["docker-content-digest"]

    def blob(self, name: str, digest: str) -> bytes:
        """A blob's bytes."""
        status, _, body = self.get(f"/v2/{name}/blobs/{digest}")
        assert status == 200, body
        return body

    def has_blob(self, name: str, digest: str) -> bool:
        """Whether a repository has a blob."""
        return self.get(f"/v2/{name}/blobs/{digest}", "HEAD")[0] == 200
