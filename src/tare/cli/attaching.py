"""One attached stay with a container or an exec: terminal, signals, window size, both directions of bytes."""

from __future__ import annotations

import os
import sys

from tare.cli.command import CliError
from tare.cli.signals import SignalPipe
from tare.cli.terminal import DetachFilter, RawTerminal, parse_detach_keys, terminal_size
from tare.client.duplex import Demultiplexer, Duplex, write_all
from tare.client.errors import ApiError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tare.cli.session import Session
    from tare.client.engine import Response
    from tare.client.wire import Wire

EXIT_ENGINE = 125


class Stay:
    """What to attach and how. object_path: "/containers/ID" or "/exec/ID", which takes `resize`."""

    def __init__(self, session: Session, object_path: str, tty: bool, stdin: bool, detach_keys: str) -> None:
        self.session = session
        self.object_path = object_path
        self.tty = tty
        self.stdin = stdin
        self.stdout = True
        self.stderr = True
        try:
            self.keys = parse_detach_keys(detach_keys)
        except ValueError as error:
            raise CliError(f"invalid detach keys ({detach_keys}): {error}") from None

    def resize(self) -> bool:
        """Tell the container's terminal our size. False if it is not running yet, or no longer."""
        rows, columns = terminal_size()
        if rows and columns:
            try:
                self.session.engine.post(f"{self.object_path}/resize", {"h": str(rows), "w": str(columns)})
            except ClientError:
                return False
        return True

    def first_resize(self) -> None:
        """Right after a start the process may not be there yet: try a few times, 150 ms in all."""
        import time

        for attempt in range(5):
            if self.resize():
                return
            time.sleep(0.01 * (attempt + 1))

    def run(self, wire: Wire, begin: Callable[[], None] | None, forward: Callable[[str], None] | None) -> bool:
        """Carry bytes until the container's side ends. begin: starts it, once the terminal is ready. False: the user
        pressed the detach keys."""
        sys.stdout.flush()
        raw = RawTerminal(0) if self.tty and self.stdin and os.isatty(0) else None
        resize = self.resize if self.tty else None
        try:
            if raw is not None:
                raw.__enter__()
            with SignalPipe(None if self.tty else forward, resize) as pipe:
                if begin is not None:
                    begin()
                if resize is not None:
                    self.first_resize()
                return self._carry(wire, pipe)
        finally:
            if raw is not None:
                raw.restore()
            wire.close()

    def _carry(self, wire: Wire, pipe: SignalPipe) -> bool:
        out = _writer(1) if self.stdout else _nowhere
        err = _writer(2) if self.stderr else _nowhere
        split = None if self.tty else Demultiplexer(out, err)
        duplex = Duplex(
            wire,
            0 if self.stdin else None,
            out if split is None else split.feed,
            pipe.fd,
            pipe.take,
            DetachFilter(self.keys) if self.tty and self.stdin else None,
        )
        duplex.run()
        return not duplex.detached


def _writer(fd: int) -> Callable[[bytes | memoryview], None]:
    def write(data: bytes | memoryview) -> None:
        write_all(fd, data)

    return write


def _nowhere(_data: bytes | memoryview) -> None:
    """A stream that the user didn't attach."""


def check_tty(stdin: bool, tty: bool) -> None:
    if stdin and tty and not os.isatty(0):
        raise CliError("the input device is not a TTY")


def attach_query(stay: Stay, detach_keys: str) -> dict[str, str | list[str]]:
    query: dict[str, str | list[str]] = {"stream": "1"}
    for name, wanted in (("stdin", stay.stdin), ("stdout", stay.stdout), ("stderr", stay.stderr)):
        if wanted:
            query[name] = "1"
    if detach_keys:
        query["detachKeys"] = detach_keys
    return query


def begin_wait(session: Session, container: str, condition: str) -> Response:
    """Ask for the exit code before it can happen. The engine answers with the head at once."""
    query: dict[str, str | list[str]] = {"condition": condition} if condition else {}
    return session.engine.call("POST", f"/containers/{container}/wait", query)


def exit_code_of(session: Session, waiting: Response) -> int:
    """The container's exit code, when it has one."""
    from tare.client.engine import read_json

    answer = read_json(waiting) or {}
    trouble = answer.get("Error")
    if trouble and trouble.get("Message"):
        session.err(f"Error waiting for container: {trouble['Message']}")
        return EXIT_ENGINE
    return int(answer.get("StatusCode", EXIT_ENGINE))


def kill_forwarder(session: Session, container: str) -> Callable[[str], None]:
    def forward(name: str) -> None:
        session.engine.post(f"/containers/{container}/kill", {"signal": name})

    return forward


def start_failure_code(error: ApiError) -> int:
    """126 or 127 if the command can't be run, as a shell would have it; 125 for everything else."""
    text = error.message.lower()
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return EXIT_ENGINE
