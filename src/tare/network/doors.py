"""The doors through which the room does what takes privilege; the composition root says what is behind them.

It must never grow beyond them: whoever adds one adds it to what an engine without root must have. Everything else that
the room does to a network it does on sockets of the namespace that its process lives in, where it is root either way:
the host's, or one that an unprivileged user made (ADR 15, ADR 16). A test lists who opens those
(tests/network/test_network_doors.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tare.kernel.netns import Netns
from tare.network.uplink import HostUplink, Uplink

MakeNetns = Callable[..., Awaitable[Netns]]
"""A network namespace that nobody is in, as `tare.kernel.netns.create` makes it; two id maps may be given."""

OpenInside = Callable[[int, str, bool], Awaitable[list[int]]]
"""Descriptors of sockets inside a namespace, as `tare.kernel.netns.open_inside` says."""


class Doors(NamedTuple):
    """What only another process can do: one with a single thread (the launcher), and one outside (an uplink)."""

    make_netns: MakeNetns
    open_inside: OpenInside
    uplink: Uplink = HostUplink()
