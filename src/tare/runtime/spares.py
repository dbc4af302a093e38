"""Spare monitors: forked while the launcher has nothing to do, each with its creator, so that a start needs no fork but
the container's own. Without one at hand the launcher forks as ever.

    launcher ──StartRequest + descriptors──▶ spare (becomes the monitor)        end of the socket: the spare exits

Runs in the launcher; imports nothing heavy.
"""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from tare.runtime import messages, monitor
from tare.runtime.creator import Creator

WANTED = 2
IDLE_MS = 12
"""How long nothing may have been asked of the launcher before it forks a spare: a start in progress comes first."""


class Spares:
    """The spares of one launcher."""

    def __init__(self, connection: socket.socket) -> None:
        """connection: the launcher's own to tared, which no spare may keep open."""
        self._connection = connection
        self._links: list[socket.socket] = []

    @property
    def poll_ms(self) -> int | None:
        """How long the launcher may wait for a request before it should refill; None: as long as it likes."""
        return IDLE_MS if len(self._links) < WANTED else None

    def refill(self) -> None:
        """Forks one more spare; a machine that can't fork now has none."""
        ours, theirs = messages.socket_pair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            return
        if pid:
            theirs.close()
            self._links.append(ours)
            return
        status = 1
        try:
            for link in (ours, self._connection, *self._links):
                link.close()
            _wait_for_work(theirs)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def hand_over(self, request: messages.StartRequest, fds: list[int]) -> bool:
        """Gives a request to a spare; False if there is none (left)."""
        while self._links:
            with self._links.pop() as link:
                try:
                    messages.send(link, request, tuple(fds))
                    return True
                except OSError:
                    continue  # somebody killed it
        return False


def _wait_for_work(link: socket.socket) -> None:
    monitor.detach()
    monitor.name_process("tare: spare monitor")
    creator = Creator()
    try:
        received = messages.receive(link)
    except (OSError, msgspec.DecodeError):
        return
    link.close()
    if received is not None and isinstance(received[0], messages.StartRequest):
        monitor.run_monitor(received[0], received[1], creator)
