"""Tells of packets that an egress policy rejected: the container that sent them, and where to.

It must never be needed for the policy itself; what comes faster than the rule tells is only counted there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tare.errors import KernelError
from tare.kernel.netlink_log import LoggedPacket, PacketLog
from tare.network.port_guard import addresses_of
from tare.network.store import NetworkStore

_log = logging.getLogger(__name__)

Denied = Callable[[str, LoggedPacket], None]
"""Is told a container's id and what it tried to send."""


class EgressLog:
    """Hears of one engine's rejected packets. Opened with the first container that has a policy."""

    def __init__(self, group: int, store: NetworkStore) -> None:
        self._group = group
        self._store = store
        self._packets: PacketLog | None = None
        self._failed = False
        self.denied: Denied | None = None

    def open(self) -> None:
        """Begins to hear, if it doesn't yet."""
        if self._packets is not None or self._failed:
            return
        try:
            self._packets = PacketLog(self._group)
        except KernelError as error:
            self._failed = True
            _log.warning("what egress policies reject isn't told of: %s", error)
            return
        asyncio.get_running_loop().add_reader(self._packets.fileno(), self._read)

    def close(self) -> None:
        if self._packets is not None:
            asyncio.get_running_loop().remove_reader(self._packets.fileno())
            self._packets.close()
            self._packets = None

    def _read(self) -> None:
        assert self._packets is not None
        packets = self._packets.read_nowait()
        if not packets or self.denied is None:
            return
        owners = {
            address: record.container_id for record in self._store.endpoints() for address in addresses_of(record)
        }
        for packet in packets:
            if packet.source in owners:
                self.denied(owners[packet.source], packet)
