# Made from tare/sdk/aio/containers.py by scripts/sdkfaces: change that one.
"""One container: its life, its output, its processes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from tare.client.engine import quote
from tare.sdk import documents
from tare.sdk.blocking.calls import FOREVER_S, Calls
from tare.sdk.blocking.files import Files
from tare.sdk.blocking.streams import Session, Stream, read_chunks, read_documents
from tare.sdk.blocking.wire import Exchange
from tare.sdk.errors import ContainerEnded
from tare.sdk.options import Command, Limits, environment_list, port_name, update_body, words
from tare.sdk.records import Change, Chunk, ContainerDetails, PublishedPort, Result, Stats

Moment = datetime | int | float | str | None


def moment_value(moment: Moment) -> str | None:
    """A time as the engine takes it: seconds since 1970, or its own forms ("10m")."""
    if isinstance(moment, datetime):
        return f"{moment.timestamp():.6f}"
    return None if moment is None else str(moment)


def end_of(timeout_s: float | None) -> float | None:
    """When a wait that begins now ends, on time.monotonic's clock."""
    return None if timeout_s is None else time.monotonic() + timeout_s


class Container:
    """A container of the engine. `with` removes it at the end, running or not, with its anonymous volumes."""

    def __init__(self, calls: Calls, id: str) -> None:
        self._calls = calls
        self.id = id
        self.files = Files(calls, id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id[:12]}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove(force=True, volumes=True)

    def _path(self, verb: str = "") -> str:
        return f"/containers/{quote(self.id)}{'/' + verb if verb else ''}"

    def _do(self, verb: str, **query: Any) -> None:
        self._calls.do("POST", self._path(verb), query)

    # -- what it is

    def inspect(self) -> ContainerDetails:
        """All about it, as it is now."""
        return documents.container_details(self._calls.json("GET", self._path("json")))

    def ports(self) -> tuple[PublishedPort, ...]:
        """Its ports, and where the host has them."""
        return (self.inspect()).ports

    def host_port(self, port: int | str) -> int:
        """The host's port for a published port of the container: 80, or "53/udp". LookupError if there is none."""
        name = port_name(port)
        for published in self.ports():
            if f"{published.container_port}/{published.protocol}" == name and published.host_port:
                return published.host_port
        raise LookupError(f"port {name} of container {self.id[:12]} is not published")

    def top(self, arguments: str = "-ef") -> list[dict[str, str]]:
        """Its processes, as ps shows them."""
        found = self._calls.json("GET", self._path("top"), {"ps_args": arguments})
        return [dict(zip(found["Titles"], row, strict=False)) for row in found["Processes"] or ()]

    def changes(self) -> list[Change]:
        """Which paths differ from its image."""
        return documents.changes(self._calls.json("GET", self._path("changes")))

    def stats(self) -> Stats:
        """What it uses now; takes a second or two, for a share of CPU needs two looks."""
        return documents.stats(self._calls.json("GET", self._path("stats"), {"stream": "0"}))

    def stream_stats(self) -> Stream[Stats]:
        """What it uses, once a second."""
        return Stream(lambda: self._calls.open("GET", self._path("stats")), read_documents, documents.stats)

    # -- its life

    def start(self) -> None:
        """Starts it; nothing happens if it runs."""
        self._do("start")

    def stop(self, timeout_s: int | None = None) -> None:
        """Asks it to end, and kills it if it doesn't in time (10 s unless it says otherwise)."""
        self._calls.json("POST", self._path("stop"), {"t": timeout_s}, timeout_s=FOREVER_S)

    def restart(self, timeout_s: int | None = None) -> None:
        """Stops and starts it."""
        self._calls.json("POST", self._path("restart"), {"t": timeout_s}, timeout_s=FOREVER_S)

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Sends a signal to its first process."""
        self._do("kill", signal=signal)

    def pause(self) -> None:
        """Freezes its processes."""
        self._do("pause")

    def unpause(self) -> None:
        """Thaws them."""
        self._do("unpause")

    def rename(self, name: str) -> None:
        """Gives it another name."""
        self._do("rename", name=name)

    def update(self, **limits: Unpack[Limits]) -> None:
        """Changes its limits, mounts and networks, also while it runs."""
        self._calls.do("POST", self._path("update"), body=update_body(limits))

    def remove(self, force: bool = False, volumes: bool = False) -> None:
        """Removes it. force: also if it runs. volumes: its anonymous ones too."""
        self._calls.do("DELETE", self._path(), {"force": force, "v": volumes})

    def export(self, path: str | Path) -> None:
        """Writes its file system to a tar archive."""
        exchange = self._calls.open("GET", self._path("export"))
        with Path(path).open("wb") as file:
            for piece in exchange.pieces():
                file.write(piece)

    def commit(self, reference: str = "", message: str = "", author: str = "", pause: bool = True) -> str:
        """Makes an image of it; returns the image's id."""
        repository, colon, tag = reference.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = reference, ""
        query = {"container": self.id, "repo": repository, "tag": tag, "comment": message, "author": author}
        answer = self._calls.json("POST", "/commit", {**query, "pause": "1" if pause else "0"}, {})
        return str(answer["Id"])

    # -- waiting

    def wait(self, condition: str = "not-running", timeout_s: float | None = None) -> int:
        """Waits for its end; returns the exit code. condition: not-running, next-exit or removed."""
        limit_s = FOREVER_S if timeout_s is None else timeout_s
        answer = self._calls.json("POST", self._path("wait"), {"condition": condition}, None, limit_s)
        return int(answer["StatusCode"])

    def wait_log(self, pattern: str | re.Pattern[str], timeout_s: float | None = None) -> str:
        """Waits until a line of its output matches (re.search), lines of the past included; returns the line."""
        wanted = re.compile(pattern)
        pending = ""
        with self.stream_logs() as chunks:
            chunks.set_deadline(end_of(timeout_s))
            for chunk in chunks:
                *lines, pending = (pending + chunk.text).split("\n")
                for line in lines:
                    if wanted.search(line):
                        return line.rstrip("\r")
        if wanted.search(pending):
            return pending
        raise ContainerEnded(f"container {self.id[:12]} ended before its output matched {wanted.pattern!r}")

    def wait_healthy(self, timeout_s: float | None = None) -> None:
        """Waits until its health check says healthy. ContainerEnded if it ends, ValueError if it has no check."""
        filters = {"type": ["container"], "container": [self.id], "event": ["health_status", "die"]}
        events = Stream(lambda: self._calls.open("GET", "/events", {"filters": filters}), read_documents, dict)
        with events:
            events.set_deadline(end_of(timeout_s))
            while True:
                now = self.inspect()
                if not now.health:
                    raise ValueError(f"container {self.id[:12]} has no health check")
                if not now.running:
                    raise ContainerEnded(f"container {self.id[:12]} ended before it was healthy", now.exit_code)
                if now.health == "healthy":
                    return
                events.__next__()

    # -- its output and input

    def _log_query(self, since: Moment, until: Moment, tail: int | None, timestamps: bool) -> dict[str, Any]:
        return {
            "since": moment_value(since),
            "until": moment_value(until),
            "tail": "all" if tail is None else str(tail),
            "timestamps": timestamps,
        }

    def _open_logs(self, query: dict[str, Any]) -> Exchange:
        tty = (self.inspect()).tty
        exchange = self._calls.open("GET", self._path("logs"), query)
        exchange.framed = not tty
        return exchange

    def logs(
        self,
        stdout: bool = True,
        stderr: bool = True,
        since: Moment = None,
        until: Moment = None,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> str:
        """What it has printed."""
        query = {**self._log_query(since, until, tail, timestamps), "stdout": stdout, "stderr": stderr}
        found = []
        for chunk in read_chunks(self._open_logs(query)):
            found.append(chunk.data)
        return b"".join(found).decode("utf-8", "replace")

    def stream_logs(
        self,
        stdout: bool = True,
        stderr: bool = True,
        since: Moment = None,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> Stream[Chunk]:
        """What it has printed and will print, until it ends."""
        query = {**self._log_query(since, None, tail, timestamps), "stdout": stdout, "stderr": stderr, "follow": True}
        return Stream(lambda: self._open_logs(query), read_chunks, chunk_itself)

    def attach(self, stdin: bool = True, logs: bool = False, tty: bool | None = None) -> Session:
        """Its first process' input and output from now on. logs: what it printed before comes first."""
        if tty is None:
            tty = (self.inspect()).tty
        query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "logs": logs}
        exchange = self._calls.hijack(self._path("attach"), query)
        exchange.framed = not tty
        return Session(self._calls, exchange, self._path(), f"container {self.id[:12]}")

    def open_exec(
        self,
        command: Command,
        *,
        stdin: bool = True,
        tty: bool = False,
        user: str = "",
        working_dir: str = "",
        environment: Mapping[str, str] | Sequence[str] = (),
        privileged: bool = False,
    ) -> Session:
        """Another process in it, to talk with."""
        argv = words(command)
        body: dict[str, Any] = {"Cmd": argv, "AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True}
        body |= {"Tty": tty, "User": user, "WorkingDir": working_dir, "Privileged": privileged}
        body["Env"] = environment_list(environment)
        made = self._calls.json("POST", self._path("exec"), None, body)
        owner = f"/exec/{made['Id']}"
        exchange = self._calls.hijack(f"{owner}/start", None, {"Detach": False, "Tty": tty})
        exchange.framed = not tty
        return Session(self._calls, exchange, owner, " ".join(argv or ()))

    def exec(
        self,
        command: Command,
        *,
        input: bytes | str | None = None,
        check: bool = False,
        timeout_s: float | None = None,
        tty: bool = False,
        user: str = "",
        working_dir: str = "",
        environment: Mapping[str, str] | Sequence[str] = (),
        privileged: bool = False,
    ) -> Result:
        """Runs a command in it to its end. check: CommandFailed unless it ends with 0.

        After timeout_s TimeoutError is raised; the process goes on, as the API has no way to end it.
        """
        session = self.open_exec(
            command,
            stdin=input is not None,
            tty=tty,
            user=user,
            working_dir=working_dir,
            environment=environment,
            privileged=privileged,
        )
        with session:
            session.set_deadline(end_of(timeout_s))
            result = session.finish(input)
        return result.check() if check else result


def chunk_itself(chunk: Any) -> Chunk:
    """Chunks need no conversion."""
    assert isinstance(chunk, Chunk)
    return chunk
