"""The monitor: one small process that owns a container's (or an exec'd process's) stdio, log and exit status.

Forked from the launcher; outlives it and tared. Single-threaded; imports nothing heavy. It must never depend on
tared: a container whose tared is gone runs on, logs, and leaves its exit status in a file. Until something happens it
is `tare.runtime.quiet`.

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

import msgspec

from tare import faults
from tare.errors import TareError
from tare.kernel import pty
from tare.runtime import messages
from tare.runtime.cgroups import open_cgroup
from tare.runtime.jsonlog import JsonLog, open_log
from tare.runtime.messages import StreamWish
from tare.runtime.status import write_exit
from tare.runtime.streams import CHUNK_BYTES, AttachedStream, Stdin

_IN, _OUT, _GONE = select.POLLIN, select.POLLOUT, select.POLLHUP | select.POLLERR


def run(handover: socket.socket, fds: list[int]) -> None:
    """The monitor's life from the first event on. handover: where its Handover is; fds: as that says."""
    received = messages.receive(handover)
    handover.close()
    if received is not None and isinstance(received[0], messages.Handover):
        Monitor(received[0], fds).serve()


class Monitor:
    """The state of a running monitor."""

    def __init__(self, handover: messages.Handover, fds: list[int]) -> None:
        """fds: as Handover says; all of them are non-blocking, but streams."""
        request = self.request = handover.request
        self.started = handover.started
        report_fd, self.listener_fd, self.pidfd = fds[:3]
        self.connections: dict[int, socket.socket | None] = {report_fd: None}
        self.watching: dict[int, int] = {}
        self.streams: dict[int, AttachedStream] = {}
        self.log: JsonLog | None = None
        self.stdin: Stdin | None = None
        self.terminal_fd: int | None = None
        self.exited: messages.Exited | None = None
        at = 4
        if request.terminal:
            self.terminal_fd = fds[3]
            self.outputs = {fds[3]: "stdout"}
            self.stdin = Stdin(fds[3], is_terminal=True)
        else:
            at = 5
            self.outputs = {fds[3]: "stdout", fds[4]: "stderr"}
            if request.open_stdin:
                self.stdin = Stdin(fds[5], is_terminal=False)
                at = 6
        if request.attached:
            for wish, fd in zip(request.attached, fds[at:], strict=True):
                self.attach(wish, fd)

    # -- loop --

    def serve(self) -> None:
        """Moves data until the process has ended and every reader has what it is owed."""
        while self.exited is None or self._owes_output():
            poller = select.poll()
            self._register(poller)
            for fd, events in poller.poll():
                self._dispatch(fd, events)

    def _register(self, poller: select.poll) -> None:
        running = self.exited is None
        if running:
            poller.register(self.listener_fd, _IN)
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
        elif fd == self.listener_fd:
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
        if self.request.log_path:
            try:
                self._open_log().write(name, data)
            except OSError:
                pass  # the disk is full: the container goes on, as does the live output
            self._tell_watchers()
        for stream in self.streams.values():
            stream.offer(name, data)
        self._drop_dead_streams()
        return True

    def _open_log(self) -> JsonLog:
        """The log, which is there already; opened late, since many containers never say a word."""
        if self.log is None:
            self.log = open_log(self.request)
        return self.log

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
            connection, _ = socket.socket(fileno=os.dup(self.listener_fd)).accept()
        except OSError:
            return
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self._tell(connection.fileno(), self.started, (self.pidfd,))

    def _connection(self, fd: int) -> socket.socket:
        """A connection as an object; that which came with the process is made one when it is used."""
        found = self.connections[fd]
        if found is None:
            found = self.connections[fd] = socket.socket(fileno=fd)
        return found

    def _serve_connection(self, fd: int) -> None:
        try:
            received = messages.receive(self._connection(fd))
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
        elif isinstance(message, messages.ClearLog) and self.request.log_path:
            self._open_log().clear()
        for extra in fds:
            os.close(extra)

    def _drop_connection(self, fd: int) -> None:
        self.watching.pop(fd, None)
        self._connection(fd).close()
        del self.connections[fd]

    def _tell(self, fd: int, message: messages.Message, fds: tuple[int, ...] = ()) -> None:
        try:
            messages.send(self._connection(fd), message, fds)
        except OSError:
            self._drop_connection(fd)

    def _tell_all(self, message: messages.Message) -> None:
        for fd in list(self.connections):
            self._tell(fd, message)

    # -- the end --

    def _reap(self) -> None:
        pid = self.started.pid
        _, status = os.waitpid(pid, 0)
        finished_ns = time.time_ns()
        code = os.waitstatus_to_exitcode(status)
        oom_killed, peak_bytes = self._clean_cgroup()
        self._drain()
        self.exited = messages.Exited(code if code >= 0 else 128 - code, oom_killed, finished_ns, peak_bytes)
        faults.point("monitor.exit.before-status")
        try:
            write_exit(self.request.directory, self.exited)
        except (
            OSError
        ):  # full, or gone: an exec's directory goes with its container. Whoever is connected is told still
            pass
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
