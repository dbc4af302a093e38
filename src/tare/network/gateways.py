"""Which of a container's networks leads out: has its default route, and its published ports. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def choose_gateway(ways: Sequence[tuple[str, bool, int]]) -> int | None:
    """The place in the sequence of (network's name, is internal, priority): the highest priority, then the first name.

    Internal networks lead nowhere; None if there are no others. Docker chooses so.
    """
    able = [(-priority, name, place) for place, (name, internal, priority) in enumerate(ways) if not internal]
    return min(able)[2] if able else None
