"""Signals while attached: passed on to the container, or turned into a window size, by a pipe that poll watches."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # `signal` wraps the same in enums, 3 ms
import os

from tare.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Everything that a user or a supervisor may send on purpose; not SIGCHLD, SIGPIPE, SIGURG or the faults.
FORWARDED = {
    _signal.SIGHUP: "HUP",
    _signal.SIGINT: "INT",
    _signal.SIGQUIT: "QUIT",
    _signal.SIGUSR1: "USR1",
    _signal.SIGUSR2: "USR2",
    _signal.SIGALRM: "ALRM",
    _signal.SIGTERM: "TERM",
    _signal.SIGCONT: "CONT",
    _signal.SIGTSTP: "TSTP",
}
FATAL = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)


class SignalPipe:
    """`with SignalPipe(forward, resize) as pipe:` pipe.fd becomes readable when one came; give what it holds to `take`.

    forward: called with a signal's name, or None: then fatal signals end this process (after clean-up). resize: called
    when the window changed.
    """

    def __init__(self, forward: Callable[[str], None] | None, resize: Callable[[], object] | None) -> None:
        self.forward = forward
        self.resize = resize
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, object] = {}

    def __enter__(self) -> SignalPipe:
        _signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        if self.forward is not None:
            for number in FORWARDED:
                self._before[number] = _signal.signal(number, _nothing)
        else:
            for number in FATAL:
                self._before[number] = _signal.signal(number, _leave)
        if self.resize is not None:
            self._before[_signal.SIGWINCH] = _signal.signal(_signal.SIGWINCH, _nothing)
        return self

    def __exit__(self, *_exc: object) -> None:
        _signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write_fd)

    def take(self, numbers: bytes) -> None:
        for number in numbers:
            if number == _signal.SIGWINCH and self.resize is not None:
                self.resize()
            elif self.forward is not None and number in FORWARDED:
                try:
                    self.forward(FORWARDED[number])
                except ClientError:
                    pass  # it ended meanwhile; its exit is on its way to us


def _nothing(_number: int, _frame: object) -> None:
    """The wake-up pipe has it."""


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
