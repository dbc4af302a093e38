"""The creator: a short-lived child of a monitor that makes the container and hands it over.

Making a container touches much of the interpreter's memory, and each page touched after a fork is a page of one's own.
The creator takes those pages with it when it exits, while the monitor, which lives as long as the container, stays as
small as its loop. The container's first process becomes the monitor's child then, since that is a subreaper (prctl(2)).
"""

from __future__ import annotations

import array
import os
import socket
import sys

import msgspec

from tare import faults
from tare.errors import TareError
from tare.kernel import process
from tare.runtime import messages
from tare.runtime.create import Created, StartFailed, create_container
from tare.runtime.enter import enter_container
from tare.runtime.failure import EXIT_ENGINE
from tare.runtime.plan import decode_exec_plan, decode_plan
from tare.runtime.waiting_init import WaitingInit

_REPORT_BYTES = 64 * 1024


class _Report(msgspec.Struct, frozen=True, array_like=True):
    """pid of the first process, or message and exit code of the failure. The terminal's master comes along."""

    pid: int
    message: str = ""
    exit_code: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Report).decode


class Creator:
    """A creator, which waits for what it has to make."""

    def __init__(self, *, with_init: bool = True) -> None:
        """Forks it; with_init: it makes ready for a container, not for an exec'd process. Raises OSError as fork(2)."""
        process.set_child_subreaper(True)
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._link.close()
            _run(theirs, with_init)
        theirs.close()

    def create(self, plan: bytes, *, is_exec: bool, stdio: tuple[int, int, int] | None, netns_fd: int | None) -> None:
        """Has it begin; the monitor has other things to do meanwhile. Raises StartFailed if it was killed.

        The caller closes its own copies of the descriptors.
        """
        fds = (*(stdio or ()), *(() if netns_fd is None else (netns_fd,)))
        request = messages.CreateRequest(plan, is_exec, stdio is not None, netns_fd is not None)
        try:
            messages.send(self._link, request, fds)
        except OSError as error:
            raise StartFailed("unable to start container process: its creator was killed") from error

    def wait_created(self) -> Created:
        """What it made; the first process is our child once the creator is reaped. Raises StartFailed."""
        with self._link as link:
            data, ancillary, _, _ = link.recvmsg(_REPORT_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise StartFailed("unable to start container process: its creator was killed")
        report = _decode(data)
        if not report.pid:
            raise StartFailed(report.message, report.exit_code)
        terminal_fd = None
        for _, _, payload in ancillary:
            terminal_fd = array.array("i", payload[:4])[0]
        return Created(report.pid, terminal_fd)

    def reap(self) -> None:
        """Waits for its end, which takes a millisecond."""
        os.waitpid(self._pid, 0)


def _run(link: socket.socket, with_init: bool) -> None:
    """The creator's life; doesn't return."""
    status = 1
    try:
        waiting = _fork_waiting() if with_init else None
        received = messages.receive(link)
        if received is not None:
            request, fds = received
            if isinstance(request, messages.CreateRequest):
                _make(link, request, fds, waiting)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _fork_waiting() -> WaitingInit | None:
    try:
        return WaitingInit()
    except (TareError, OSError):
        return None  # it is forked when the plan is there; if that fails too, it says why


def _make(link: socket.socket, request: messages.CreateRequest, fds: list[int], waiting: WaitingInit | None) -> None:
    """Makes what was asked for, and reports."""
    terminal_fd = None
    unused = waiting
    stdio = (fds[0], fds[1], fds[2]) if request.has_stdio else None
    try:
        if request.is_exec:
            if waiting is not None:
                waiting.drop()
            created = enter_container(decode_exec_plan(request.plan), stdio=stdio)
        else:
            netns_fd = fds[-1] if request.has_netns else None
            plan = decode_plan(request.plan)
            if waiting is not None and waiting.fits(plan):
                unused = None
            elif waiting is not None:
                waiting.drop()
                waiting = None
            created = create_container(plan, stdio=stdio, netns_fd=netns_fd, waiting=waiting, encoded=request.plan)
        report, terminal_fd = _Report(created.pid), created.terminal_fd
    except StartFailed as error:
        report = _Report(0, str(error), error.exit_code)
    except (TareError, OSError, faults.InjectedFault) as error:
        report = _Report(0, str(error), EXIT_ENGINE)
    rights = [] if terminal_fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [terminal_fd]))]
    link.sendmsg([_encode(report)], rights)
    if unused is not None:
        unused.reap()
