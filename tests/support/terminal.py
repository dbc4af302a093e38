"""A real pseudo-terminal with a program on it, as a person at a keyboard sees it; never a pipe pretending to be one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from support.deadline import PATIENCE


class Terminal:
    """Runs argv as the foreground program of a new pty and speaks with it."""

    def __init__(
        self, argv: Sequence[str], *, rows: int = 24, cols: int = 80, env: Mapping[str, str] | None = None
    ) -> None:
        self._fd, slave = pty.openpty()
        self.resize(rows, cols)
        self.seen = b""
        self._mark = 0

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=env, preexec_fn=take_terminal, close_fds=True
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def send(self, keys: bytes) -> None:
        """Types the keys."""
        os.write(self._fd, keys)

    def resize(self, rows: int, cols: int) -> None:
        """Gives the window another size; the kernel tells the program by SIGWINCH."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGWINCH)

    def expect(self, text: bytes, timeout_s: float = 15, nudge: Callable[[], None] | None = None) -> bytes:
        """Reads until `text` shows after what earlier calls consumed; returns all up to and with it.

        nudge: called now and then while it hasn't shown.
        """
        end = time.monotonic() + timeout_s * PATIENCE
        while (at := self.seen.find(text, self._mark)) < 0:
            left = end - time.monotonic()
            if nudge is not None:
                nudge()
            if left <= 0 or not self._read(0.5 if nudge else left):
                raise AssertionError(f"the terminal never showed {text!r}, but: {self.seen[self._mark :]!r}")
        part = self.seen[self._mark : at + len(text)]
        self._mark = at + len(text)
        return part

    def wait(self, timeout_s: float = 15) -> int:
        """Reads to the end and returns the program's exit code."""
        end = time.monotonic() + timeout_s * PATIENCE
        while (left := end - time.monotonic()) > 0 and self._read(left):
            pass
        return self.process.wait(max(0.1, end - time.monotonic()))

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        if not ready:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.seen += data
        return bool(data)
