"""Pid 1 of a container with `--init`: forwards signals to the user's program, reaps what is orphaned, ends as it ends.

It is the forked runtime itself, with the container's rights and filter on, so that no host binary is mounted inside.
Runs inside the container; imports nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tare.kernel.fds import close_from
from tare.kernel.process import block_signals, set_dumpable, set_title, wait_signal

# Not forwarded: what the kernel sends us for our own doing, and what can't be caught.
_OWN = frozenset(
    (
        *(signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGFPE, signal.SIGILL, signal.SIGBUS),
        *(signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS, signal.SIGTTIN, signal.SIGTTOU),
    )
)
# All but the two that each C library takes for its threads: a program's setuid(2) is no affair of its neighbours'.
_FORWARDED = frozenset((*range(1, 32), *range(34, 65))) - _OWN


def run_under_reaper(title: str, area: tuple[int, int], has_terminal: bool, execute: Callable[[], None]) -> None:
    """Forks; the child gets its own process group and runs `execute`. Neither of them returns."""
    # Our memory holds what the launcher knew, and /proc/1 is in sight of the container (proc(5), /proc/PID/mem).
    set_dumpable(False)
    set_title(area, title)
    watched = block_signals({*_FORWARDED, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if has_terminal:
            # From a background group this would stop us with SIGTTOU (tcsetpgrp(3)).
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        execute()
        os._exit(127)
    close_from(3)
    os._exit(_wait_end(child, watched))


def _wait_end(child: int, watched: bytes) -> int:
    while True:
        received = wait_signal(watched)
        if received != signal.SIGCHLD:
            try:
                os.kill(child, received)
            except ProcessLookupError:
                pass
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
