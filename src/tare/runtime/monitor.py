"""The monitor: one small process that owns a container's (or an exec'd process's) stdio, log and exit status.

Forked from the launcher; outlives it and tared. Single-threaded; imports nothing heavy. It must never depend on
tared: a container whose tared is gone runs on, logs, and leaves its exit status in a file.

Its directory (below tared's exec root) holds
    monitor.sock   where a tared connects (see messages.py)
    state.json     {"pid", "start_ticks", "started_ns"}: written before the start is reported
    exit.json      {"exit_code", "oom_killed", "finished_ns"}: written before the exit is reported
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable

import msgspec

from tare import faults
from tare.errors import TareError
from tare.kernel import process, pty
from tare.runtime import messages
from tare.runtime.cgroups import open_cgroup
from tare.runtime.create import StartFailed
from tare.runtime.creator import Creator
from tare.runtime.jsonlog import JsonLog
from tare.runtime.messages import StartRequest, StreamWish
from tare.runtime.streams import CHUNK_BYTES, AttachedStream, Stdin

SOCKET_NAME = "monitor.sock"
STATE_NAME = "state.json"
EXIT_NAME = "exit.json"
Life = Callable[[socket.socket], None]
_title_area = (0, 0)
_IN, _OUT, _GONE = select.POLLIN, select.POLLOUT, select.POLLHUP | select.POLLERR


def detach() -> None:
    """Makes this process independent of the launcher that forked it."""
    os.setsid()
    process.default_signal(signal.SIGCHLD)  # SIGPIPE is ignored already: every Python does that


def run_monitor(request: StartRequest, fds: list[int], creator: Creator, link: socket.socket) -> None:
    """The monitor's whole life; returns when nobody needs it any more.

    fds: as StartRequest says. link: to the launcher; its end tells that the start is over.
    """
    report = socket.socket(fileno=fds.pop(0))
    netns_fd = fds.pop(0) if request.has_netns else None
    name_process(f"tare: monitor of {request.name}")
    try:
        monitor = Monitor(request, report)
        for wish, fd in zip(request.attached, fds, strict=True):
            monitor.attach(wish, fd)
        monitor.start(creator, netns_fd)
        link.close()
    except StartFailed as error:
        _report_failure(report, str(error), error.exit_code)
        return
    except (TareError, OSError, faults.InjectedFault) as error:
        _report_failure(report, str(error), 125)
        return
    monitor.serve()


def _report_failure(report: socket.socket, message: str, exit_code: int) -> None:
    try:
        messages.send(report, messages.Failed(message, exit_code))
    except OSError:
        pass


class Monitor:
    """The state of a running monitor."""

    def __init__(self, request: StartRequest, report: socket.socket) -> None:
        self.request = request
        self.connections: dict[int, socket.socket] = {report.fileno(): report}
        self.watching: dict[int, int] = {}
        self.streams: dict[int, AttachedStream] = {}
        self.outputs: dict[int, str] = {}
        self.log: JsonLog | None = None
        self.stdin: Stdin | None = None
        self.terminal_fd: int | None = None
        self.started: messages.Started | None = None
        self.exited: messages.Exited | None = None
        self.pidfd = -1
        report.setblocking(False)

    # -- start --

    def start(self, creator: Creator, netns_fd: int | None) -> None:
        """Starts the process and reports it. Raises StartFailed."""
        request = self.request
        stdio = None if request.terminal else self._make_pipes()
        creator.create(request.plan, is_exec=request.is_exec, stdio=stdio, netns_fd=netns_fd)
        self._listen()
        created = creator.wait_created()
        if stdio is not None:
            for fd in set(stdio):
                os.close(fd)
        if netns_fd is not None:
            os.close(netns_fd)
        if created.terminal_fd is not None:
            self.terminal_fd = created.terminal_fd
            os.set_blocking(self.terminal_fd, False)
            self.outputs[self.terminal_fd] = "stdout"
            self.stdin = Stdin(self.terminal_fd, is_terminal=True)
        self.pidfd = os.pidfd_open(created.pid)
        self.started = messages.Started(created.pid, start_ticks(created.pid), time.time_ns())
        faults.point("monitor.start.before-state")
        write_aside(request.directory, STATE_NAME, msgspec.json.encode(_fields(self.started)))
        faults.point("monitor.start.before-report")
        for fd in list(self.connections):
            self._tell(fd, self.started, (self.pidfd,))
        creator.reap()

    def _listen(self) -> None:
        request = self.request
        self.listener = messages.listen_in(request.directory, SOCKET_NAME)
        self.listener.setblocking(False)
        if request.log_path:
            limits = (request.log_max_bytes, request.log_max_files)
            options = {"compress": request.log_compress, "counted": request.log_counted}
            self.log = JsonLog(request.log_path, *limits, request.log_attributes, **options)

    def _make_pipes(self) -> tuple[int, int, int]:
        if self.request.open_stdin:
            stdin_read, stdin_write = os.pipe()
            os.set_blocking(stdin_write, False)
            self.stdin = Stdin(stdin_write, is_terminal=False)
        else:
            stdin_read = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        ends = []
        for name in ("stdout", "stderr"):
            read, write = os.pipe()
            os.set_blocking(read, False)
            self.outputs[read] = name
            ends.append(write)
        return stdin_read, ends[0], ends[1]

    # -- loop --

    def serve(self) -> None:
        """Moves data until the process has ended and every reader has what it is owed."""
        while self.exited is None or self._owes_output():
            poller = select.poll()
            self._register(poller)
            for fd, events in poller.poll():
                self._dispatch(fd, events)
        self.listener.close()

    def _register(self, poller: select.poll) -> None:
        running = self.exited is None
        if running:
            poller.register(self.listener.fileno(), _IN)
            poller.register(self.pidfd, _IN)
            for fd in self.connections:
                poller.register(fd, _IN)
        clogged = any(stream.is_clogged for stream in self.streams.values())
        if not clogged:
            for fd in self.outputs:
                poller.register(fd, _IN)
        stdin_full = self.stdin is not None and self.stdin.has_pending
        if self.stdin is not None and stdin_full:
            also_read = self.stdin.fd in self.outputs and not clogged
            poller.register(self.stdin.fd, _OUT | (_IN if also_read else 0))
        for fd, stream in self.streams.items():
            wanted = _OUT if stream.has_pending else 0
            if stream.reads_input and not stdin_full:
                wanted |= _IN
            poller.register(fd, wanted)

    def _dispatch(self, fd: int, events: int) -> None:
        if self.stdin is not None and fd == self.stdin.fd and events & (_OUT | select.POLLERR):
            self.stdin.flush()
        if fd in self.outputs and events & (_IN | _GONE):
            self._read_output(fd)
        elif fd in self.streams:
            self._serve_stream(fd, events)
        elif fd == self.pidfd:
            self._reap()
        elif fd == self.listener.fileno():
            self._accept()
        elif fd in self.connections:
            self._serve_connection(fd)

    def _owes_output(self) -> bool:
        return any(stream.has_pending for stream in self.streams.values())

    # -- output --

    def _read_output(self, fd: int) -> bool:
        """Passes one chunk on; False if there was none."""
        try:
            data = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose other side is closed (tty_ioctl(4))
                raise
            data = b""
        if not data:
            self._close_output(fd)
            return False
        name = self.outputs[fd]
        if self.log is not None:
            try:
                self.log.write(name, data)
            except OSError:
                pass  # the disk is full: the container goes on, as does the live output
            self._tell_watchers()
        for stream in self.streams.values():
            stream.offer(name, data)
        self._drop_dead_streams()
        return True

    def _close_output(self, fd: int) -> None:
        del self.outputs[fd]
        if fd != self.terminal_fd:
            os.close(fd)

    def _tell_watchers(self) -> None:
        if self.log is None:
            return
        for fd, known in list(self.watching.items()):
            if self.log.written_bytes > known:
                del self.watching[fd]
                self._tell(fd, messages.LogGrew(self.log.written_bytes))

    # -- attached streams --

    def attach(self, wish: StreamWish, fd: int) -> None:
        """Connects a stream socket to the process."""
        self.streams[fd] = AttachedStream(fd, wish, framed=not self.request.terminal)

    def _serve_stream(self, fd: int, events: int) -> None:
        stream = self.streams[fd]
        if events & _OUT:
            stream.flush()
        if events & (_IN | _GONE) and stream.reads_input:
            data = stream.read_input()
            if data:
                if self.stdin is not None:
                    self.stdin.write(data)
            elif data is not None:
                self._input_ended()
        elif events & _GONE:
            stream.dead = True
        self._drop_dead_streams()

    def _input_ended(self) -> None:
        if self.request.stdin_once and self.stdin is not None and not self.stdin.is_terminal:
            self.stdin.close_when_flushed()

    def _drop_dead_streams(self) -> None:
        for fd in [fd for fd, stream in self.streams.items() if stream.dead]:
            self.streams.pop(fd).close()

    # -- tared's connections --

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        if self.started is not None:
            self._tell(connection.fileno(), self.started, (self.pidfd,))

    def _serve_connection(self, fd: int) -> None:
        try:
            received = messages.receive(self.connections[fd])
        except BlockingIOError:
            return
        except (OSError, msgspec.DecodeError):
            received = None
        if received is None:
            self._drop_connection(fd)
            return
        message, fds = received
        if isinstance(message, messages.Attach) and fds:
            self.attach(message.wish, fds.pop())
        elif isinstance(message, messages.Resize) and self.terminal_fd is not None:
            pty.set_window_size(self.terminal_fd, message.height, message.width)
        elif isinstance(message, messages.WatchLog):
            self.watching[fd] = message.written_bytes
            self._tell_watchers()
        elif isinstance(message, messages.ClearLog) and self.log is not None:
            self.log.clear()
        for extra in fds:
            os.close(extra)

    def _drop_connection(self, fd: int) -> None:
        self.watching.pop(fd, None)
        self.connections.pop(fd).close()

    def _tell(self, fd: int, message: messages.Message, fds: tuple[int, ...] = ()) -> None:
        try:
            messages.send(self.connections[fd], message, fds)
        except OSError:
            self._drop_connection(fd)

    def _tell_all(self, message: messages.Message) -> None:
        for fd in list(self.connections):
            self._tell(fd, message)

    # -- the end --

    def _reap(self) -> None:
        assert self.started is not None
        pid = self.started.pid
        _, status = os.waitpid(pid, 0)
        finished_ns = time.time_ns()
        code = os.waitstatus_to_exitcode(status)
        oom_killed, peak_bytes = self._clean_cgroup()
        self._drain()
        self.exited = messages.Exited(code if code >= 0 else 128 - code, oom_killed, finished_ns, peak_bytes)
        faults.point("monitor.exit.before-status")
        write_aside(self.request.directory, EXIT_NAME, msgspec.json.encode(_fields(self.exited)))
        faults.point("monitor.exit.before-report")
        self._tell_all(self.exited)
        if self.stdin is not None:
            self.stdin.close()
        for stream in self.streams.values():
            stream.end()
        self._drop_dead_streams()

    def _clean_cgroup(self) -> tuple[bool, int]:
        """Whether the kernel killed for want of memory, and the peak then. Afterwards the cgroup is gone."""
        if not self.request.cgroup or self.request.is_exec:
            return False, 0
        cgroup = open_cgroup(self.request.cgroup)
        try:
            killed = cgroup.oom_kills() > 0
            peak_bytes = cgroup.stats().memory.max_usage if killed else 0
            if cgroup.pids():  # only where the container shares another's or the host's pid namespace
                cgroup.kill(signal.SIGKILL)
            cgroup.remove()
        except (OSError, TareError):
            return False, 0
        return killed, peak_bytes

    def _drain(self) -> None:
        """Takes what the process wrote before it ended; others may hold its pipes open, so not for longer than that."""
        for fd in list(self.outputs):
            while fd in self.outputs and self._read_output(fd):
                pass
        if self.log is not None:
            try:
                self.log.close()
            except OSError:
                pass
        self.outputs.clear()


def _fields(message: messages.Started | messages.Exited) -> dict[str, int | bool]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def write_aside(directory: str, name: str, data: bytes) -> None:
    """Makes directory/name hold data, whole or not at all."""
    aside = f"{directory}/.{name}.{os.getpid()}"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(aside, f"{directory}/{name}")


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)); 0 if it is gone."""
    try:
        return int(_read_small(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def find_title() -> None:
    """In the launcher: finds where the command line is, which is the same place in all that it forks, and names all."""
    global _title_area
    _title_area = process.find_title_area()
    process.set_name("tare-monitor")


def name_process(title: str) -> None:
    """Shows title in ps(1): writes over the command line that the launcher inherited (proc(5), arg_start)."""
    process.set_command_line(_title_area, title)


def _read_small(path: str) -> bytes:
    """A file of /proc; without the buffers of open(), whose pages would stay ours."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
