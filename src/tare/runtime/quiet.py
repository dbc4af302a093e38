"""A monitor until something happens: it forks its creator, gets the process's descriptors, and waits for any of them.

Python writes to a page when it only looks at an object, by counting the reference, and each page that a monitor writes
is its own for as long as the container lives. So nothing is decoded here, no class of ours is made, system calls go
without the checks that others have, and what runs next (`tare.runtime.monitor`) is called at the first event only. Many
containers never have one before they end. It must never do what the creator could do for it.

    creator ──the title + [report socket, listening socket, pidfd, terminal | output, error, input?, streams…]──▶
            ──Handover, which stays in the socket until it is wanted──▶ monitor

Imports nothing heavy.
"""

from __future__ import annotations

import _socket
import os
import select
import signal
import socket

from tare.kernel import libc
from tare.runtime import messages, monitor
from tare.runtime.creator import run_creator

_TITLE_BYTES = 128 * 1024
_SCM = (socket.SOL_SOCKET, socket.SCM_RIGHTS)
_RIGHTS_SPACE = socket.CMSG_SPACE(messages.MAX_DESCRIPTORS * 4)
# Plain numbers: looking at a member of an enumeration costs ten pages.
_CLOEXEC, _UNIX, _SEQPACKET = int(socket.MSG_CMSG_CLOEXEC), int(socket.AF_UNIX), int(socket.SOCK_SEQPACKET)
_SIGCHLD, _SIG_DFL = int(signal.SIGCHLD), int(signal.SIG_DFL)
_PR_SET_CHILD_SUBREAPER = 36
_POLLIN = select.POLLIN


def run_monitor(link_fd: int, with_init: bool, area: tuple[int, int], title: bytes) -> None:
    """The monitor's whole life; returns when nobody needs it any more.

    link_fd: to the launcher; the request comes through it, and its end tells that the start is over. with_init: whether
    a first process is made ready before. area: where the command line is in memory. title: what is to be seen there as
    long as there is no container, padded to the area's size.
    """
    os.setsid()
    libc.bare_signal(_SIGCHLD, _SIG_DFL)  # SIGPIPE is ignored already: every Python does that
    libc.bare_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start, size = area
    if size:
        libc.bare_memmove(start, title, size)
    ours, theirs = _socket.socketpair(_UNIX, _SEQPACKET)
    own_pid = os.getpid()
    creator_pid = os.fork()
    if creator_pid == 0:
        ours.close()
        run_creator(socket.socket(fileno=theirs.detach()), own_pid, socket.socket(fileno=link_fd), with_init, size)
    theirs.close()
    os.close(link_fd)
    name, ancillary, _, _ = ours.recvmsg(_TITLE_BYTES, _RIGHTS_SPACE, _CLOEXEC)
    os.waitpid(creator_pid, 0)  # from now on what it made is our child
    if not ancillary:
        return
    if size:
        libc.bare_memmove(start, name, size)
    fds = memoryview(ancillary[0][2]).cast("i").tolist()
    poller = select.poll()
    for fd in fds:
        poller.register(fd, _POLLIN)
    poller.poll()
    monitor.run(socket.socket(fileno=ours.detach()), fds)
