"""Spare monitors: forked while the launcher has nothing to do, each with its creator and a first process, so that a
start needs no fork at all. Without one at hand the launcher forks as ever.

    launcher ──StartRequest + descriptors──▶ spare (becomes the monitor)        end of the socket: the spare exits
    launcher ◀──────end of the socket────── monitor, when its start is over     then a new spare is forked

Runs in the launcher; imports nothing heavy.
"""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from tare.runtime import messages, monitor
from tare.runtime.creator import Creator

LEAST, MOST = 1, 8
"""How many spares there are when nothing happens, and in a burst of starts."""
QUIET_MS = 5000
"""How long nothing may have happened before the spares of a burst go."""


class Spares:
    """The spares of one launcher, and the starts that are under way."""

    def __init__(self, connection: socket.socket) -> None:
        """connection: the launcher's own to tared, which no spare may keep open."""
        self._connection = connection
        self._ready: list[socket.socket] = []
        self._under_way: dict[int, socket.socket] = {}
        self._wanted = LEAST

    @property
    def may_refill(self) -> bool:
        """Whether one is missing and nobody waits for a start meanwhile: that comes first."""
        return len(self._ready) < self._wanted and not self._under_way

    @property
    def quiet_ms(self) -> int | None:
        """How long the launcher may wait before it calls `shrink`; None: as long as it likes."""
        return QUIET_MS if self._wanted > LEAST else None

    def refill(self) -> None:
        """Forks one more spare; a machine that can't fork now makes do with fewer."""
        try:
            link = self._fork(_wait_for_work)
        except OSError:
            self._wanted = len(self._ready)
            return
        self._ready.append(link)

    def shrink(self) -> None:
        """After a burst: only the least stay."""
        self._wanted = LEAST
        while len(self._ready) > LEAST:
            self._ready.pop().close()

    def start(self, request: messages.StartRequest, fds: list[int]) -> int:
        """Has a spare, or a monitor that is forked now, carry a request out; the descriptors stay the caller's.

        Returns the descriptor that hangs up when that start is over; then call `is_over`. Raises OSError as fork(2).
        """
        link = self._hand_over(request, fds)
        if link is None:
            self._wanted = min(self._wanted + 1, MOST)
            with_init = not request.is_exec
            link = self._fork(lambda link: monitor.run_monitor(request, list(fds), Creator(with_init=with_init), link))
        self._under_way[link.fileno()] = link
        return link.fileno()

    def is_over(self, fd: int) -> None:
        """A start is over."""
        self._under_way.pop(fd).close()

    def _hand_over(self, request: messages.StartRequest, fds: list[int]) -> socket.socket | None:
        while self._ready:
            link = self._ready.pop()
            try:
                messages.send(link, request, tuple(fds))
                return link
            except OSError:
                link.close()  # somebody killed it
        return None

    def _fork(self, life: monitor.Life) -> socket.socket:
        """Forks a monitor that lives that life; returns our end of its link. Raises OSError as fork(2)."""
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
        status = 1
        try:
            for link in (ours, self._connection, *self._ready, *self._under_way.values()):
                link.close()
            monitor.detach()
            life(theirs)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)


def _wait_for_work(link: socket.socket) -> None:
    monitor.name_process("tare: spare monitor")
    creator = Creator()
    try:
        received = messages.receive(link)
    except (OSError, msgspec.DecodeError):
        return
    if received is not None and isinstance(received[0], messages.StartRequest):
        monitor.run_monitor(received[0], received[1], creator, link)
