"""How long a registry may let us wait: sockets that are shut when time is up, or nobody wants what comes over them.

Must never count our own slowness as the registry's.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tare.registry.records import Cancelled, Interrupted

SLOW_WINDOW_S = 60.0
SLOW_BYTES = 64 << 10
"""A body that brings less than this in a window of waiting is given up."""


class Watch:
    """The sockets of one thread's request: shut when its time is up, or nobody wants it any more."""

    def __init__(self) -> None:
        self._lines: list[socket.socket] = []
        self._lock = threading.Lock()
        self.expired = False
        self.cancelled = False

    def adopt(self, line: socket.socket) -> None:
        with self._lock:
            self._lines = [line]
            if self.cancelled or self.expired:
                self._shut()

    @contextmanager
    def until(self, seconds: float) -> Iterator[None]:
        """Within the block the request has this long."""
        timer = threading.Timer(seconds, self.expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def expire(self) -> None:
        """The request's time is up."""
        with self._lock:
            self.expired = True
            self._shut()

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            self._shut()

    def check(self, url: str) -> None:
        """Raises Cancelled or Interrupted where the connections were shut."""
        if self.cancelled:
            raise Cancelled(f"{url}: cancelled")
        if self.expired:
            raise Interrupted(f"{url}: the registry takes too long to answer")

    def _shut(self) -> None:
        for line in self._lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


class Pace:
    """Whether a body comes fast enough. Entered while bytes are awaited: only that time counts, not the reader's own.

    A timer judges, since a registry can keep a single read waiting for ever: a chunk's size has no end, for one.
    """

    def __init__(self, watch: Watch, least: Callable[[], int]) -> None:
        self.got = 0
        self.missed = 0
        """How many bytes should have come, once it is too slow."""
        self.window_s = SLOW_WINDOW_S
        self._watch = watch
        self._least = least
        self._waited_s = 0.0
        self._since: float | None = None
        self._lock = threading.Lock()
        self._ended = False
        self._arm(self.window_s)

    def __enter__(self) -> None:
        with self._lock:
            self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count()
            self._since = None

    def end(self) -> None:
        with self._lock:
            self._ended = True
            self._timer.cancel()

    def _count(self) -> None:
        if self._since is not None:
            now = time.monotonic()
            self._waited_s += now - self._since
            self._since = now

    def _arm(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._judge)
        self._timer.daemon = True
        self._timer.start()

    def _judge(self) -> None:
        with self._lock:
            self._count()
            if self._ended:
                return
            if self._waited_s < self.window_s:
                return self._arm(max(self.window_s - self._waited_s, self.window_s / 10))
            if self.got < (least := self._least()):
                self.missed = least
                return self._watch.expire()
            self.got, self._waited_s = 0, 0.0
            self._arm(self.window_s)
