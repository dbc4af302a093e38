"""Notices that a half-closed peer has closed for good, although nobody reads its socket any more."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable


class HangupWatch:
    """Calls back once when the socket is shut in both directions or broken.

    After a half-close the loop can't poll for readability (it would spin: EOF is always readable), but poll(2)
    reports POLLHUP and POLLERR even for an empty event mask; an epoll set with just that is itself pollable.
    """

    def __init__(self, sock: socket.socket, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._epoll: select.epoll | None = select.epoll(1)
        self._epoll.register(sock.fileno(), 0)
        self._loop.add_reader(self._epoll.fileno(), self._fired)

    def _fired(self) -> None:
        self.close()
        self._callback()

    def close(self) -> None:
        """Ends the watch; idempotent."""
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            self._loop.remove_reader(epoll.fileno())
            epoll.close()
