"""Notices when somebody else flushes or changes the engine's table (`nft flush ruleset`, a firewall's reload).

It must never rebuild because of changes of its own: it asks first whether the table is whole.
"""

from __future__ import annotations

import asyncio
import logging

from tare.errors import TareError
from tare.kernel.nftables_news import NftablesNews
from tare.network.table import Table

_log = logging.getLogger(__name__)

_SETTLE_S = 0.02  # a reload comes in several transactions


class TableWatch:
    """Rebuilds the table soon after it was damaged (CVE-2025-54388, CVE-2025-54410: ports open after a reload)."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._news = NftablesNews()
        self._loop = asyncio.get_running_loop()
        self._check: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._news.fileno(), self._read)

    def _read(self) -> None:
        if self._news.read_nowait(self._table.name) and self._check is None:
            self._check = self._loop.call_later(_SETTLE_S, self._repair)

    def _repair(self) -> None:
        self._check = None
        try:
            if not self._table.is_whole():
                _log.warning("somebody changed the packet filter's table %s; it is built anew", self._table.name)
                self._table.rebuild_all()
        except TareError:
            _log.exception("the packet filter's table %s could not be repaired", self._table.name)

    def close(self) -> None:
        if self._check is not None:
            self._check.cancel()
        self._loop.remove_reader(self._news.fileno())
        self._news.close()
