"""Terminals of tare-runtime: sent to a console socket, or shown on our own terminal while we wait."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import tty
from types import FrameType

from tare.errors import InvalidArgument
from tare.kernel import pty


def send_terminal(path: str, terminal_fd: int) -> None:
    """Sends a terminal's master to whoever listens on the unix socket, with a name as its data (runc's protocol)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(path)
        socket.send_fds(link, [b"/dev/ptmx"], [terminal_fd])


def check_console(terminal: bool, detached: bool, console_socket: str) -> None:
    """Whether a console socket is there exactly where one is needed."""
    if detached and terminal and not console_socket:
        raise InvalidArgument("cannot allocate tty if runc will detach without setting console socket")
    if (not detached or not terminal) and console_socket:
        raise InvalidArgument("cannot use console socket if runc will not detach or allocate tty")


def _copy(source_fd: int, target_fd: int) -> bool:
    try:
        data = os.read(source_fd, 65536)
    except OSError:
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(target_fd, view) :]
    return bool(data)


def relay_terminal(terminal_fd: int) -> None:
    """Connects our standard input and output with a terminal until the program on it has ended."""
    own = sys.stdin.isatty()
    before = termios.tcgetattr(0) if own else None

    def resize(_number: int = 0, _frame: FrameType | None = None) -> None:
        columns, rows = os.get_terminal_size(0)
        pty.set_window_size(terminal_fd, rows, columns)

    try:
        if own:
            resize()
            signal.signal(signal.SIGWINCH, resize)
            tty.setraw(0)
        sources = [0, terminal_fd]
        while terminal_fd in sources:
            ready, _, _ = select.select(sources, [], [])
            if terminal_fd in ready and not _copy(terminal_fd, 1):
                sources.remove(terminal_fd)
            if 0 in ready and not _copy(0, terminal_fd):
                sources.remove(0)
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def wait_exit(pid: int) -> int:
    """Waits for our child, passing on the signals that we get; its exit code, 128+n for a signal."""

    def forward(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    status = os.waitpid(pid, 0)[1]
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
