"""Tracked datagram flows that must be forgotten: UDP has no end, so connection tracking would keep sending them wrong.

It reads the whole connection table: only in a thread, and only where UDP ports are published or were.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tare.errors import KernelError
from tare.kernel.netlink_conntrack import ConntrackSocket

_log = logging.getLogger(__name__)


def forget_answers_of(addresses: Sequence[str]) -> None:
    """Forgets the flows that lead to containers which are gone."""
    try:
        with ConntrackSocket() as sock:
            for address in addresses:
                sock.forget_replies_from(address)
    except KernelError as error:
        _log.warning("flows of %s stay tracked: %s", ", ".join(addresses), error)


def forget_datagrams_to(ports: Sequence[int]) -> None:
    """Forgets flows to host ports from before they were published, which would go on missing the container."""
    try:
        with ConntrackSocket() as sock:
            for port in ports:
                sock.forget_datagrams_to(port)
    except KernelError as error:
        _log.warning("flows to UDP port %s stay tracked: %s", ", ".join(map(str, ports)), error)
