"""The keeper of an uplink: a process in the host's namespaces that runs the one program which connects the engine's.

    python -m tare.network.uplink_keeper FD DIRECTORY

It must never run what it is told to, only the programs that it knows; nor leave one behind: they end with it, and it
ends with the last holder of the connection's other end (whoever starts engines without root keeps one, so that ports
stay open while an engine is started anew). It has one thread, and waits for nothing but its descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tare.errors import Unavailable, system_text
from tare.kernel import process
from tare.kernel.namespaces import pidfd_open
from tare.kernel.netlink_route import RouteSocket
from tare.network import uplink_programs
from tare.network.defaults import reached_subnets
from tare.network.uplink_messages import (
    Answer,
    Back,
    Done,
    Ended,
    Forward,
    Message,
    Refused,
    Request,
    Start,
    Stop,
    receive,
    send,
)
from tare.network.uplink_programs import (
    ADDRESS,
    PROGRAMS,
    RESOLVER,
    Port,
    Program,
    bind_error,
    refused_text,
)

_READY_S, _KILL_S = 10.0, 2.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.1, 5.0
_SETTLE_S = 0.05  # ports come in groups
_LAST_WORDS = 2000


class Running:
    """One started program: its process, and what it says."""

    def __init__(self, program: Program, child: subprocess.Popen[bytes], alive_fd: int) -> None:
        self.program = program
        self.child = child
        self.pidfd = pidfd_open(child.pid)
        self._alive_fd = alive_fd
        assert child.stderr is not None
        self.stderr_fd = child.stderr.fileno()
        os.set_blocking(self.stderr_fd, False)
        self.talks = True
        self._said = b""

    def listen(self) -> None:
        """Keeps its last words only."""
        with contextlib.suppress(BlockingIOError):
            while self.talks:
                data = os.read(self.stderr_fd, 4096)
                self.talks = bool(data)
                self._said = (self._said + data)[-_LAST_WORDS:]

    def end(self) -> str:
        """Ends it, if it hasn't; returns how it did, and its last words."""
        os.close(self._alive_fd)
        self.child.terminate()
        try:
            status = self.child.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            status = self.child.wait()
        self.listen()
        os.close(self.pidfd)
        assert self.child.stderr is not None
        self.child.stderr.close()
        lines = self._said.decode(errors="replace").strip().splitlines()
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        return f"{how}: {' / '.join(lines[-3:])}" if lines else how


class _Ready:
    """Where a program says that it is ready. fd: our end. there_fd: a pipe's other end, or -1 for a FIFO's at path."""

    def __init__(self, program: Program, directory: Path) -> None:
        self._fifo: Path | None = None
        if program.inherits:
            self.fd, self.there_fd = os.pipe2(os.O_CLOEXEC)
            self.path = Path(f"/proc/self/fd/{self.there_fd}")
            return
        self.path = self._fifo = directory / f"{program.name}.ready"
        self._fifo.unlink(missing_ok=True)
        os.mkfifo(self._fifo, 0o600)
        self.fd, self.there_fd = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), -1

    def close_there(self) -> None:
        """So that the program's end is the pipe's."""
        if self.there_fd >= 0:
            os.close(self.there_fd)

    def close(self) -> None:
        os.close(self.fd)
        if self._fifo is not None:
            self._fifo.unlink(missing_ok=True)


class Keeper:
    """All that one keeper knows."""

    def __init__(self, connection: socket.socket, directory: Path) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._connection = connection
        self._directory = directory
        self._pid = 0  # whose network namespace it is
        self._program: Program | None = None
        self._running: Running | None = None
        self._ports: dict[Port, None] = {}
        self._retry_s = _FIRST_RETRY_S
        self._due = 0.0  # when the program is to be started (anew); 0: not

    def serve(self) -> None:
        """Until nobody holds the other end."""
        try:
            while True:
                timeout_ms = max(0, int((self._due - time.monotonic()) * 1000)) if self._due else None
                ready = self._poll(timeout_ms)
                if self._connection.fileno() in ready and not self._serve_one():
                    return
                running = self._running
                if running is not None and running.stderr_fd in ready:
                    running.listen()
                if running is not None and self._running is running and running.pidfd in ready:
                    self._note_end(running)
                if self._due and time.monotonic() >= self._due:
                    self._start_anew()
        finally:
            self._stop()

    def _poll(self, timeout_ms: int | None) -> set[int]:
        poller = select.poll()
        poller.register(self._connection.fileno(), select.POLLIN)
        if self._running is not None:
            poller.register(self._running.pidfd, select.POLLIN)
            if self._running.talks:
                poller.register(self._running.stderr_fd, select.POLLIN)
        return {fd for fd, _ in poller.poll(timeout_ms)}

    def _serve_one(self) -> bool:
        received = receive(self._connection)
        if received is None:
            return False
        request, pid = received
        if not isinstance(request, Request):
            return True  # nothing that a keeper is asked
        try:
            answer = self._answer(request, pid)
        except Unavailable as error:
            answer = Refused("unavailable", str(error))
        self._tell(msgspec.structs.replace(answer, serial=request.serial))
        return True

    def _tell(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # its end is seen by the next read
            send(self._connection, message)

    def _answer(self, request: Request, pid: int) -> Answer:
        if isinstance(request, Start):
            return self._start(request, pid)
        if isinstance(request, Stop):
            self._stop()
            return Done()
        if isinstance(request, Forward):
            return self._forward(Port(request.protocol, request.host_ip, request.port))
        return self._unforward(Port(request.protocol, request.host_ip, request.port))

    # ── the program ──────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, request: Start, pid: int) -> Answer:
        if not pid:
            raise Unavailable("the kernel doesn't say whose namespaces an uplink is wanted for")
        self._pid = pid
        if self._running is None:
            self._program = _choose(request.program)
            self._launch_whole(self._program)
            self._due = 0.0
        assert self._program is not None
        with RouteSocket() as sock:
            reached = tuple(map(str, reached_subnets(sock)))
        return Done(self._program.name, ADDRESS, RESOLVER, self._program.keeps_loopback, reached)

    def _launch(self, program: Program) -> None:
        """Starts it and waits until it is ready. Raises Unavailable with its last words."""
        ready = _Ready(program, self._directory)
        alive_there_fd, alive_fd = os.pipe2(os.O_CLOEXEC)
        try:
            start = uplink_programs.Start(
                pid=self._pid,
                ready_fd=ready.there_fd,
                ready_path=ready.path,
                alive_fd=alive_there_fd,
                directory=self._directory,
                ports=tuple(self._ports),
                usage=_usage(program) if program.varies else "",
            )
            child = subprocess.Popen(
                program.arguments(start),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(ready.there_fd, alive_there_fd) if program.inherits else (),
                preexec_fn=_die_with_keeper,
            )
        except OSError as error:
            os.close(alive_fd)
            ready.close()
            raise Unavailable(f"{program.name}: {system_text(error.errno or 0)}") from error
        finally:
            ready.close_there()
            os.close(alive_there_fd)
        running = Running(program, child, alive_fd)
        try:
            if not _is_ready(running, ready.fd):
                raise Unavailable(f"{program.name} didn't start: {running.end()}")
        finally:
            ready.close()
        self._running = running

    def _note_end(self, running: Running) -> None:
        self._running = None
        self._tell(Ended(running.end()))
        self._due = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S)

    def _start_anew(self) -> None:
        """After it ended, or because a port that it must know at its start came or went."""
        self._due = 0.0
        program = self._program
        if program is None:
            return
        was_lost = self._running is None
        if self._running is not None:
            self._running.end()
            self._running = None
        try:
            lost = self._launch_whole(program)
        except Unavailable as error:
            self._tell(Ended(str(error)))
            self._due = time.monotonic() + self._retry_s
            self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S)
            return
        if was_lost or lost:
            self._tell(Back(", ".join(map(str, lost))))
        self._retry_s = _FIRST_RETRY_S

    def _launch_whole(self, program: Program) -> list[Port]:
        """With all its ports, but for those returned: somebody else has them by now."""
        lost = [] if program.live else [port for port in self._ports if bind_error(port) is not None]
        self._forget(lost)
        self._launch(program)
        if program.live:
            lost = [port for port in self._ports if not self._added(program, port)]
            self._forget(lost)
        return lost

    def _added(self, program: Program, port: Port) -> bool:
        try:
            program.add(port)
        except Unavailable:
            return bind_error(port) is None  # else it is the program's own trouble, which its end will tell
        return True

    def _forget(self, ports: list[Port]) -> None:
        for port in ports:
            self._ports.pop(port, None)

    def _stop(self) -> None:
        self._due = 0.0
        if self._running is not None:
            self._running.end()
            self._running = None
        self._ports.clear()
        self._program = None

    # ── ports ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _forward(self, port: Port) -> Answer:
        if self._program is None:
            raise Unavailable("the uplink isn't started")
        if port in self._ports:
            return Done()
        refusal = self._program.refusal(port)
        if refusal:
            return Refused("unsupported", refusal)
        error = bind_error(port)
        if error is None and any(port.has_number_of(other) for other in self._ports):
            error = OSError(errno.EADDRINUSE, "")  # inside there is one address for all of the host's
        if error is not None:
            return Refused("taken", refused_text(port, error))
        if self._running is not None and self._program.live:
            self._program.add(port)
        self._ports[port] = None
        self._ports_changed()
        return Done()

    def _unforward(self, port: Port) -> Answer:
        if port in self._ports:
            del self._ports[port]
            if self._program is not None and self._running is not None:
                self._program.remove(port)
            self._ports_changed()
        return Done()

    def _ports_changed(self) -> None:
        if self._program is not None and not self._program.live and not self._due:
            self._due = time.monotonic() + _SETTLE_S


def _choose(wanted: str) -> Program:
    names = [wanted] if wanted else list(PROGRAMS)
    for name in names:
        if name in PROGRAMS and shutil.which(name):
            return PROGRAMS[name]()
    raise Unavailable(f"networks without root need one of these programs: {', '.join(names)}")


def _usage(program: Program) -> str:
    """What it prints of its options. Not by --help: into a pipe the pasta of 2025 prints 4096 bytes of that."""
    try:
        argv = [program.name, "--what-options-are-there"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_READY_S)
    except subprocess.TimeoutExpired:
        return ""
    return (done.stdout + done.stderr).decode(errors="replace")


def _is_ready(running: Running, ready_fd: int) -> bool:
    deadline = time.monotonic() + _READY_S
    while (left := deadline - time.monotonic()) > 0:
        said = [running.stderr_fd] if running.talks else []
        ready = select.select([ready_fd, running.pidfd, *said], [], [], left)[0]
        if ready_fd in ready:
            return bool(os.read(ready_fd, 64))
        running.listen()
        if running.pidfd in ready:
            return False
    return False


def _die_with_keeper() -> None:
    process.set_parent_death_signal(signal.SIGKILL)


def keep(connection: socket.socket, directory: Path) -> None:
    """The whole life of a process that keeps an uplink. directory: its own, made and removed."""
    process.set_name("tare-uplink")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        Keeper(connection, directory).serve()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    keep(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
