"""The forker: a child of the launcher that forks monitors and does nothing else.

A page that a parent writes after a fork stays behind as its child's own: what the launcher does between two starts
(decoding, making network namespaces) would be paid for by each monitor. The forker touches only what a monitor touches
anyway. It must never import, decode or decide anything.

    launcher ──one byte + [the monitor's end of a link]──▶ forker ──fork──▶ monitor        end of file: it exits
"""

from __future__ import annotations

import array
import os
import socket
import sys

import msgspec

from tare.errors import system_text
from tare.kernel import process
from tare.kernel.fds import close_others
from tare.runtime import messages, quiet

SPARE_TITLE = b"tare: spare monitor"
WITH_INIT, WITHOUT_INIT = b"i", b"-"
_SCM = (socket.SOL_SOCKET, socket.SCM_RIGHTS)
_SPACE = socket.CMSG_SPACE(4)
_CLOEXEC = socket.MSG_CMSG_CLOEXEC


class Forker:
    """The launcher's side; forks another forker if it was killed."""

    def __init__(self) -> None:
        """Raises OSError as fork(2)."""
        self._link = _fork_forker()

    def ask(self, link: socket.socket, *, with_init: bool) -> None:
        """Has a monitor forked for that link, which stays the caller's.

        with_init: whether its creator makes a first process ready before it knows a plan. Raises OSError as fork(2) if
        the forker had to be forked anew.
        """
        word = WITH_INIT if with_init else WITHOUT_INIT
        rights = [(*_SCM, array.array("i", [link.fileno()]))]
        try:
            self._link.sendmsg([word], rights, socket.MSG_NOSIGNAL)
        except OSError:
            self._link.close()
            self._link = _fork_forker()
            self._link.sendmsg([word], rights, socket.MSG_NOSIGNAL)


def _fork_forker() -> socket.socket:
    ours, theirs = messages.socket_pair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid:
        theirs.close()
        return ours
    try:
        close_others({theirs.fileno()})  # no link may be open here: its end tells that a start is over
        area = process.find_title_area()
        process.set_name("tare-monitor")
        process.set_command_line(area, "tare: monitors")
        _serve(socket.SocketType(fileno=theirs.detach()), area)
    finally:
        os._exit(0)


def _serve(requests: socket.SocketType, area: tuple[int, int]) -> None:
    """SocketType: the class in C, below socket.socket, which touches fewer pages."""
    title = SPARE_TITLE.ljust(area[1], b"\0")[: area[1]]
    while True:
        word, ancillary, _, _ = requests.recvmsg(1, _SPACE, _CLOEXEC)
        if not word:
            return
        link_fd = int.from_bytes(ancillary[0][2], sys.byteorder)
        try:
            pid = os.fork()
        except OSError as error:
            _refuse(link_fd, error)
            continue
        if pid == 0:
            requests.close()
            _live(link_fd, word == WITH_INIT, area, title)
        os.close(link_fd)


def _live(link_fd: int, with_init: bool, area: tuple[int, int], title: bytes) -> None:
    status = 1
    try:
        quiet.run_monitor(link_fd, with_init, area, title)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _refuse(link_fd: int, error: OSError) -> None:
    """Tells whoever waits for a start that is in the link already; a spare's link has none, and just ends."""
    with socket.socket(fileno=link_fd) as link:
        link.setblocking(False)
        try:
            received = messages.receive(link)
            if received is not None:
                with socket.socket(fileno=received[1][0]) as report:
                    messages.send(report, messages.Failed(f"fork: {system_text(error.errno or 0)}", 125))
                for fd in received[1][1:]:
                    os.close(fd)
        except (OSError, msgspec.DecodeError):
            return
