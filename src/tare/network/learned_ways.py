"""Which ways are open because of a name's answer, and for how long: what is open already is not opened once more.

Must never grow with what strangers answer: who runs a name that a policy allows could name millions of addresses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

GRACE_S = 30  # a way stays open for longer than the answer holds
MOST_WAYS = 4096
"""Of one endpoint at a time: what comes beyond is told to the container, but stays closed."""


class LearnedWays:
    """The ways of one engine's endpoints. `clear` it whenever the packet filter may have lost some."""

    def __init__(self) -> None:
        self._until: dict[str, dict[tuple[str, str], float]] = {}

    def clear(self) -> None:
        self._until.clear()

    def wanted(self, endpoint_id: str, name: str, addresses: Iterable[str], seconds: int) -> list[str]:
        """Those of the addresses that must be opened, or kept open for longer, now: for `seconds` and GRACE_S.

        They count as open from here on. A way that is open for the seconds anyway stays as it is, so that who asks
        again and again costs little.
        """
        now = time.monotonic()
        known = self._until.setdefault(endpoint_id, {})
        found = []
        for address in dict.fromkeys(addresses):
            until = known.get((name, address), 0.0)
            if until - now >= seconds:
                continue
            if (name, address) not in known and len(known) >= MOST_WAYS:
                for key in [key for key, end in known.items() if end <= now]:
                    del known[key]
                if len(known) >= MOST_WAYS:
                    break
            known[name, address] = now + seconds + GRACE_S
            found.append(address)
        return found
