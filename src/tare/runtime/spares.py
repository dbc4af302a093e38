"""Spare monitors: forked while the launcher has nothing to do, each with its creator and a first process, so that a
start needs no fork at all. Without one at hand it is forked when it is asked for.

    launcher ──StartRequest + descriptors──▶ the creator of a spare          end of the socket: the spare exits
    launcher ◀──────end of the socket────── creator, when the start is over  then a new spare is forked

Runs in the launcher; imports nothing heavy.
"""

from __future__ import annotations

import socket

from tare.runtime import messages
from tare.runtime.forker import Forker

LEAST, MOST = 1, 8
"""How many spares there are when nothing happens, and in a burst of starts."""
QUIET_MS = 5000
"""How long nothing may have happened before the spares of a burst go."""


class Spares:
    """The spares of one launcher, and the starts that are under way."""

    def __init__(self) -> None:
        """Raises OSError as fork(2)."""
        self._ready: list[socket.socket] = []
        self._under_way: dict[int, socket.socket] = {}
        self._wanted = LEAST
        self._forker = Forker()

    @property
    def may_refill(self) -> bool:
        """Whether one is missing and nobody waits for a start meanwhile: that comes first."""
        return len(self._ready) < self._wanted and not self._under_way

    @property
    def quiet_ms(self) -> int | None:
        """How long the launcher may wait before it calls `shrink`; None: as long as it likes."""
        return QUIET_MS if self._wanted > LEAST else None

    def refill(self) -> None:
        """Has one more spare forked; a machine that can't fork now makes do with fewer."""
        ours, theirs = messages.socket_pair()
        try:
            self._forker.ask(theirs, with_init=True)
        except OSError:
            self._wanted = len(self._ready)
            ours.close()
            return
        finally:
            theirs.close()
        self._ready.append(ours)

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
            link = self._start_anew(request, fds)
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
