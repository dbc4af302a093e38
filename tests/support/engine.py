"""An engine under test, Tare's or Docker's, and all kinds of client to it; knows nothing of how it is started."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.busybox import Extra, busybox_tar
from support.deadline import PATIENCE
from support.rawhttp import Answer, RawClient, tell
from support.terminal import Terminal

IMAGE = "box"
observers: list[Callable[[Sequence[str], int | None, str], None]] = []
"""Who is told of every command: its line, exit code if it has ended, stderr (see support.recording)."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Result:
    """What a command printed and its exit code."""

    code: int
    out: str
    err: str


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment without anything that steers an engine or a client, and with an empty client config."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TARE_", "DOCKER_", "COMPOSE_", "BUILDKIT_"))}
    kept.update({"DOCKER_CONFIG": "/nonexistent", "LC_ALL": "C.UTF-8", "TERM": "xterm", "PYTHONDONTWRITEBYTECODE": "1"})
    return {**kept, **(extra or {})}


def docker_clients() -> list[str]:
    """Every official docker client on this machine, the first on PATH first."""
    found = [shutil.which("docker"), "/usr/bin/docker"]
    return list(dict.fromkeys(path for path in found if path and os.access(path, os.X_OK)))


class Engine:
    """One running engine.

    name: "tare" or "docker". socket: its API. enter: command prefix that enters the network namespace in which its
    published ports and bridge addresses are found (empty: ours). shared: others use it too, so only containers from
    this engine object's own image may be removed.
    """

    def __init__(self, name: str, socket: Path, *, enter: Sequence[str] = (), shared: bool = False) -> None:
        self.name = name
        self.socket = socket
        self.enter = list(enter)
        self.shared = shared
        self.mark = os.urandom(3).hex()
        self.image = f"tt{self.mark}/{IMAGE}" if shared else IMAGE
        self.client_program = (docker_clients() or ["docker"])[0]
        self.api = RawClient(str(socket), check=name == "tare")

    def __repr__(self) -> str:
        return f"<Engine {self.name}>"

    @property
    def is_tare(self) -> bool:
        """Whether this is ours."""
        return self.name == "tare"

    @functools.cached_property
    def release(self) -> int:
        """The major version of Docker whose behaviour is to be expected: a dockerd's own; ours follows the newest."""
        return sys.maxsize if self.is_tare else int(self.api.request("GET", "/version").json["Version"].split(".")[0])

    @functools.cached_property
    def sdk(self) -> Any:
        """docker-py's client."""
        import docker

        client = docker.DockerClient(base_url=f"unix://{self.socket}", version="auto", timeout=30)
        client.api.hooks["response"].append(self._tell_answer)
        return client

    def _tell_answer(self, answer: Any, **_: Any) -> None:
        path = answer.request.path_url
        tell(str(self.socket), answer.request.method, path, answer.status_code)

    def unique(self, stem: str = "c") -> str:
        """A container or image name that nobody else uses."""
        return f"tt{self.mark}-{stem}{next(_numbers)}"

    # ── the official command line ────────────────────────────────────────────────────────────────────────────────

    def argv(self, *args: str) -> list[str]:
        """The official client's command line for this engine."""
        return [self.client_program, "-H", f"unix://{self.socket}", *args]

    def docker(
        self,
        *args: str,
        input: bytes | str | None = None,
        check: bool = True,
        timeout: float = 40,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Runs the official client. check: AssertionError unless it exits 0."""
        return run(self.argv(*args), input=input, check=check, timeout=timeout, env=env)

    def tare_cli(self, *args: str, input: bytes | str | None = None, check: bool = True, timeout: float = 40) -> Result:
        """Runs our own client on this engine."""
        argv = [sys.executable, "-m", "tare.cli.main", "-H", f"unix://{self.socket}", *args]
        return run(argv, input=input, check=check, timeout=timeout)

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Starts the official client with pipes; the caller ends it."""
        tell_command(self.argv(*args), None, "")
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(self.argv(*args), env=clean_environment(), **options)

    def terminal(self, *args: str, rows: int = 24, cols: int = 80) -> Terminal:
        """Starts the official client on a pty."""
        tell_command(self.argv(*args), None, "")
        return Terminal(self.argv(*args), rows=rows, cols=cols, env=clean_environment())

    def run(self, *args: str, **options: Any) -> Result:
        """`docker run --rm` with the image put after flags: the last arguments from the first that is no flag."""
        return self.docker("run", "--rm", *self.with_image(args), **options)

    def with_image(self, args: Sequence[str]) -> list[str]:
        """args with "@" replaced by the image."""
        return [self.image if arg == "@" else arg for arg in args]

    def in_network(self, *argv: str, timeout: float = 15, check: bool = True, input: bytes | None = None) -> Result:
        """Runs a command where the engine's ports are."""
        return run([*self.enter, *argv], timeout=timeout, check=check, input=input)

    # ── verbs that tests need as preparation ─────────────────────────────────────────────────────────────────────

    def start(self, *args: str, command: Sequence[str] = ("sleep", "1000"), flags: Sequence[str] = ()) -> str:
        """A running container from the image; returns its id."""
        return self.docker("run", "-d", *flags, *args, self.image, *command).out.strip()

    def inspect(self, container: str) -> Any:
        """The container's inspect document."""
        answer = self.api.request("GET", f"/containers/{container}/json")
        assert answer.status == 200, answer
        return answer.json

    def create(self, body: Mapping[str, Any], name: str | None = None) -> Answer:
        """POST /containers/create with the image filled in."""
        return self.api.request(
            "POST", "/containers/create", {"Image": self.image, **body}, query={"name": name} if name else None
        )

    def exit_code(self, container: str, timeout: float = 30) -> int:
        """Waits until the container has ended."""
        answer = self.api.request("POST", f"/containers/{container}/wait", timeout=timeout)
        assert answer.status == 200, answer
        return int(answer.json["StatusCode"])

    def logs(self, container: str) -> str:
        """stdout and stderr so far."""
        result = self.docker("logs", container)
        return result.out + result.err

    def import_image(self, reference: str, tar: bytes, changes: Sequence[str] = ('CMD ["sh"]',)) -> str:
        """Imports a tar; returns the image's id."""
        query = {"fromSrc": "-", "repo": reference, "changes": list(changes)}
        answer = self.api.request("POST", "/images/create", tar, query=query)
        assert answer.status == 200 and b"error" not in answer.body, answer
        return str(answer.body.decode().rsplit('"status":"', 1)[1].split('"')[0])

    def hostile_image(self, extra: Extra, changes: Sequence[str] = ('CMD ["sh"]',)) -> str:
        """An image like the usual one but for `extra` (see busybox_tar); returns its reference."""
        reference = self.unique("image")
        self.import_image(reference, busybox_tar(extra), changes)
        return reference

    # ── before and after ─────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self) -> None:
        """Imports the image unless it is there."""
        if self.api.request("GET", f"/images/{self.image}/json").status != 200:
            self.import_image(self.image, busybox_tar())

    def containers(self) -> list[str]:
        """Ids of all containers that are the tests' own."""
        query: dict[str, Any] = {"all": "1"}
        if self.shared:
            query["filters"] = {"ancestor": [self.image]}
        return [entry["Id"] for entry in self.api.request("GET", "/containers/json", query=query).json]

    def clean(self) -> None:
        """Removes the tests' own containers."""
        for container in self.containers():
            self.api.request(
                "DELETE", f"/containers/{container}", query={"force": "1", "v": "1", "trash": "0"}, check=False
            )

    def clean_images(self) -> None:
        """Removes images that tests made, all but the usual one."""
        for image in self.api.request("GET", "/images/json").json:
            tags = [tag for tag in image["RepoTags"] or () if tag.startswith(f"tt{self.mark}-")]
            dangling = not self.shared and not [tag for tag in image["RepoTags"] or () if tag != "<none>:<none>"]
            for reference in tags or ([image["Id"]] if dangling else []):
                self.api.request("DELETE", f"/images/{reference}", query={"force": "1", "trash": "0"}, check=False)


def tell_command(argv: Sequence[str], code: int | None, error: str) -> None:
    """Tells the observers of a command."""
    for observer in observers:
        observer(argv, code, error)


def run(
    argv: Sequence[str],
    *,
    input: bytes | str | None = None,
    check: bool = True,
    timeout: float = 40,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Runs a command to its end with captured output and nothing on stdin but `input`."""
    data = input.encode() if isinstance(input, str) else input
    stdin = {"input": data} if data is not None else {"stdin": subprocess.DEVNULL}
    options: dict[str, Any] = {"env": clean_environment(env), "timeout": timeout * PATIENCE, **stdin}
    done = subprocess.run(argv, capture_output=True, **options)
    result = Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    tell_command(argv, result.code, result.err)
    assert not check or result.code == 0, (
        f"{' '.join(argv)}\nexited {result.code}\n{result.out[-2000:]}{result.err[-2000:]}"
    )
    return result
