"""The creator: a short-lived child of a monitor that takes the request, makes the container and hands it over.

Making a container touches much of the interpreter's memory, and each page touched after a fork is a page of one's own.
The creator takes those pages with it when it exits, while the monitor, which lives as long as the container, touches
what its loop needs and no more. The container's first process becomes the monitor's child then, since that is a
subreaper (prctl(2)).

    launcher ──StartRequest + descriptors──▶ creator ──Started──▶ tared
                                                     ──descriptors, Handover──▶ monitor         then it exits

It must never outlive its monitor: a container without one could not tell how it ended.
"""

from __future__ import annotations

import array
import os
import signal
import socket
import sys
import time
from typing import NoReturn

import msgspec

from tare import faults
from tare.errors import TareError
from tare.kernel import process
from tare.runtime import messages
from tare.runtime.create import Created, StartFailed, create_container
from tare.runtime.enter import enter_container
from tare.runtime.failure import EXIT_ENGINE
from tare.runtime.jsonlog import open_log
from tare.runtime.plan import decode_exec_plan, decode_plan
from tare.runtime.status import SOCKET_NAME, start_ticks, write_state
from tare.runtime.waiting_init import WaitingInit


def run_creator(
    monitor: socket.socket, monitor_pid: int, link: socket.socket, with_init: bool, title_bytes: int
) -> NoReturn:
    """The creator's life; doesn't return.

    monitor: to the monitor, whose child we are. link: to the launcher; the request comes through it, and its end tells
    that the start is over. with_init: whether a first process is made ready before. title_bytes: how long a command
    line the monitor can show.
    """
    status = 1
    try:
        process.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() == monitor_pid:  # else it died before the line above
            _wait_for_work(monitor, link, _fork_waiting() if with_init else None, title_bytes)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _wait_for_work(monitor: socket.socket, link: socket.socket, waiting: WaitingInit | None, title_bytes: int) -> None:
    try:
        received = messages.receive(link)
    except (OSError, msgspec.DecodeError):
        return
    if received is None or not isinstance(received[0], messages.StartRequest):
        return
    _Start(received[0], received[1], waiting).carry_out(monitor, title_bytes)
    if waiting is not None and waiting.dropped:
        waiting.reap()  # else it would be a zombie of the monitor's


def _fork_waiting() -> WaitingInit | None:
    try:
        return WaitingInit()
    except (TareError, OSError):
        return None  # it is forked when the plan is there; if that fails too, it says why


class _Start:
    """One start. fds: as StartRequest says; ours."""

    def __init__(self, request: messages.StartRequest, fds: list[int], waiting: WaitingInit | None) -> None:
        self.request = request
        self.report = socket.socket(fileno=fds[0])
        self.report.setblocking(False)
        self.netns_fd = fds[1] if request.has_netns else None
        self.streams = fds[2 if request.has_netns else 1 :]
        self.waiting = waiting
        self.listener: socket.socket | None = None
        self.kept: list[int] = []
        """The monitor's ends of the process's pipes: standard output and error, and input if that is open."""

    def carry_out(self, monitor: socket.socket, title_bytes: int) -> None:
        """Makes what was asked for, tells tared, and hands it over to the monitor."""
        created = None
        try:
            created = self._create()
            pidfd = os.pidfd_open(created.pid)
            started = messages.Started(created.pid, start_ticks(created.pid), time.time_ns())
            faults.point("monitor.start.before-state")
            write_state(self.request.directory, started)
            faults.point("monitor.start.before-report")
            self._tell(started, (pidfd,))
            if created.terminal_fd is not None:
                os.set_blocking(created.terminal_fd, False)
                self.kept = [created.terminal_fd]
            self._hand_over(monitor, started, pidfd, title_bytes)
        except StartFailed as error:
            self._tell(messages.Failed(str(error), error.exit_code))
        except (TareError, OSError, faults.InjectedFault) as error:
            self._tell(messages.Failed(str(error), EXIT_ENGINE))
            if created is not None:
                os.kill(created.pid, signal.SIGKILL)  # nobody would know how it ended

    def _tell(self, message: messages.Message, fds: tuple[int, ...] = ()) -> None:
        try:
            messages.send(self.report, message, fds)
        except OSError:
            pass  # tared is gone: the next one connects to the monitor

    def _hand_over(self, monitor: socket.socket, started: messages.Started, pidfd: int, title_bytes: int) -> None:
        if self.listener is None:
            self._listen()
        assert self.listener is not None
        fds = (self.report.fileno(), self.listener.fileno(), pidfd, *self.kept, *self.streams)
        title = f"tare: monitor of {self.request.name}".encode("utf-8", "replace")
        padded = title[: max(title_bytes - 1, 1)].ljust(title_bytes, b"\0")
        monitor.sendmsg([padded], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))], socket.MSG_NOSIGNAL)
        messages.send(monitor, messages.Handover(msgspec.structs.replace(self.request, plan=b""), started))

    def _create(self) -> Created:
        request = self.request
        stdio = None if request.terminal else self._make_pipes()
        if request.is_exec:
            self._drop_waiting()
            return enter_container(decode_exec_plan(request.plan), stdio=stdio, meanwhile=self._listen)
        plan = decode_plan(request.plan)
        if self.waiting is not None and not self.waiting.fits(plan):
            self._drop_waiting()
        return create_container(
            plan,
            stdio=stdio,
            netns_fd=self.netns_fd,
            waiting=self.waiting,
            encoded=request.plan,
            meanwhile=self._listen,
        )

    def _drop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.drop()
            self.waiting = None

    def _listen(self) -> None:
        """Makes the monitor's socket, and the log, which the monitor opens when there is something to write."""
        request = self.request
        self.listener = messages.listen_in(request.directory, SOCKET_NAME)
        self.listener.setblocking(False)
        if request.log_path:
            open_log(request).close()

    def _make_pipes(self) -> tuple[int, int, int]:
        ends = []
        for _ in ("stdout", "stderr"):
            read, write = os.pipe()
            os.set_blocking(read, False)
            self.kept.append(read)
            ends.append(write)
        if self.request.open_stdin:
            stdin_read, stdin_write = os.pipe()
            os.set_blocking(stdin_write, False)
            self.kept.append(stdin_write)
        else:
            stdin_read = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return stdin_read, ends[0], ends[1]
