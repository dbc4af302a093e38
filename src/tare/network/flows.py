"""Tracked datagram flows that must be forgotten: UDP has no end, so connection tracking would keep sending them wrong.

It reads the whole connection table: only in a thread, and only where UDP ports are published or were.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import partial

from tare.errors import KernelError
from tare.kernel.netlink_conntrack import ConntrackSocket, Flow
from tare.kernel.netlink_route import Ip, RouteSocket
from tare.network.rules import PublishedPort

_log = logging.getLogger(__name__)


def forget_answers_of(addresses: Sequence[str]) -> None:
    """Forgets the flows that lead to containers which are gone."""
    try:
        with ConntrackSocket() as sock:
            for address in addresses:
                sock.forget_replies_from(address)
    except KernelError as error:
        _log.warning("flows of %s stay tracked: %s", ", ".join(addresses), error)


def forget_misled_datagrams(ports: Sequence[PublishedPort]) -> None:
    """Forgets flows to host ports from before they were published, which would go on missing the container.

    Only those sent to this host and answered by somebody else: what already reaches the container is right, and what
    passes through to the same port of another machine (DNS) is no business of ours.
    """
    try:
        with ConntrackSocket() as sock, RouteSocket() as route:
            own = {address.interface.ip for address in route.addresses()}
            for port in ports:
                sock.forget_datagrams_to(port.host_port, partial(_is_misled, port, own))
    except KernelError as error:
        _log.warning("flows to UDP ports stay tracked: %s", error)


def _is_misled(port: PublishedPort, own: Collection[Ip], flow: Flow) -> bool:
    if port.host_ip.is_unspecified:
        is_ours = flow.destination in own or flow.destination.is_loopback
    else:
        is_ours = flow.destination == port.host_ip
    return is_ours and flow.answers != port.container_ip
