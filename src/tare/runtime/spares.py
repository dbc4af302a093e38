"""Spare monitors: forked while the launcher has nothing to do, each with its creator and a first process, so that a
start needs no fork at all. Without one at hand it is forked when it is asked for.

    launcher ──StartRequest + descriptors──▶ the creator of a spare          end of the socket: the spare exits
    launcher ◀──────end of the socket────── creator, when the start is over  then a new spare is forked

An exec has no use for the first process. As long as one follows another they have spares of their own, without it.

Runs in the launcher; imports nothing heavy.
"""

from __future__ import annotations

import socket

from tare.runtime import messages
from tare.runtime.forker import Forker

MOST = 8
"""How many spares of a kind there are in a burst of starts."""
QUIET_MS = 5000
"""How long nothing may have happened before the spares of a burst go."""


class _Pool:
    """Spares of one kind. least: how many there are when nothing happens. with_init: for containers, not for execs."""

    def __init__(self, least: int, *, with_init: bool) -> None:
        self.least = least
        self.wanted = least
        self.with_init = with_init
        self.ready: list[socket.socket] = []


class Spares:
    """The spares of one launcher, and the starts that are under way."""

    def __init__(self) -> None:
        """Raises OSError as fork(2)."""
        self._containers = _Pool(1, with_init=True)
        self._execs = _Pool(0, with_init=False)
        self._pools = (self._containers, self._execs)
        self._under_way: dict[int, socket.socket] = {}
        self._exec_lately = False
        self._forker = Forker()

    @property
    def may_refill(self) -> bool:
        """Whether one is missing and nobody waits for a start meanwhile: that comes first."""
        return not self._under_way and any(len(pool.ready) < pool.wanted for pool in self._pools)

    @property
    def quiet_ms(self) -> int | None:
        """How long the launcher may wait before it calls `shrink`; None: as long as it likes."""
        return QUIET_MS if self._exec_lately or any(pool.wanted > pool.least for pool in self._pools) else None

    def refill(self) -> None:
        """Has one more spare forked; a machine that can't fork now makes do with fewer."""
        pool = next(pool for pool in self._pools if len(pool.ready) < pool.wanted)
        ours, theirs = messages.socket_pair()
        try:
            self._forker.ask(theirs, with_init=pool.with_init)
        except OSError:
            pool.wanted = len(pool.ready)
            ours.close()
            return
        finally:
            theirs.close()
        pool.ready.append(ours)

    def shrink(self) -> None:
        """After a burst: only the least stay."""
        self._exec_lately = False
        for pool in self._pools:
            pool.wanted = pool.least
            while len(pool.ready) > pool.least:
                pool.ready.pop().close()

    def start(self, request: messages.StartRequest, fds: list[int]) -> int:
        """Has a spare, or a monitor that is forked now, carry a request out; the descriptors stay the caller's.

        Returns the descriptor that hangs up when that start is over; then call `is_over`. Raises OSError as fork(2).
        """
        link = self._find_spare(request, fds) or self._start_anew(request, fds)
        self._under_way[link.fileno()] = link
        return link.fileno()

    def is_over(self, fd: int) -> None:
        """A start is over."""
        self._under_way.pop(fd).close()

    def _find_spare(self, request: messages.StartRequest, fds: list[int]) -> socket.socket | None:
        """A lone exec takes a container's spare, and leaves it at that: one that comes every half minute, as health
        checks do, would have spares of its own forked for nothing."""
        pool = self._execs if request.is_exec else self._containers
        link = _hand_over(pool, request, fds)
        if link is None and (self._exec_lately or not request.is_exec):
            pool.wanted = min(pool.wanted + 1, MOST)
        if request.is_exec:
            self._exec_lately = True
            link = link or _hand_over(self._containers, request, fds)
        return link

    def _start_anew(self, request: messages.StartRequest, fds: list[int]) -> socket.socket:
        ours, theirs = messages.socket_pair()
        try:
            messages.send(ours, request, tuple(fds))  # first: who can't fork finds whom to tell
            self._forker.ask(theirs, with_init=False)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours


def _hand_over(pool: _Pool, request: messages.StartRequest, fds: list[int]) -> socket.socket | None:
    while pool.ready:
        link = pool.ready.pop()
        try:
            messages.send(link, request, tuple(fds))
            return link
        except OSError:
            link.close()  # somebody killed it
    return None
