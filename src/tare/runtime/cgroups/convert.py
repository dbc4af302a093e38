"""Pure conversions between the units of cgroup v1, which the OCI spec speaks, and those of v2."""

from __future__ import annotations

import math

from tare.errors import InvalidArgument

UNLIMITED = -1
# v1 prints PAGE_COUNTER_MAX * page size for "no limit": 2^63 - 1 rounded down to pages. Anything near it is none.
_V1_UNLIMITED_FROM = 1 << 62


def weight_from_shares(shares: int) -> int:
    """cpu.shares (2 … 262144, default 1024) as cpu.weight (1 … 10000, default 100).

    The curve meets both ends and maps default to default, which the linear formula of older runtimes does not
    (there 1024 shares become weight 39, so a container yields to every other cgroup with default settings).
    """
    if shares == 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight_from_blkio(weight: int) -> int:
    """blkio.weight (10 … 1000) as io.weight (1 … 10000)."""
    return 0 if weight == 0 else 1 + (weight - 10) * 9999 // 990


def swap_max(memory_limit: int | None, memory_and_swap: int) -> int:
    """memory.swap.max of v2, which counts swap alone, from v1's limit on memory and swap together."""
    if memory_and_swap == UNLIMITED:
        return UNLIMITED
    if memory_limit is None or memory_limit <= 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if memory_and_swap < memory_limit:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    return memory_and_swap - memory_limit


def format_limit(value: int) -> str:
    """A v2 limit: `max` for -1."""
    return "max" if value < 0 else str(value)


def parse_limit(text: str | None) -> int | None:
    """A limit as the kernel prints it; None for `max`, for v1's huge number, and where there is no such file."""
    if text is None or not text.isdigit():
        return None
    value = int(text)
    return None if value >= _V1_UNLIMITED_FROM else value


def parse_cpu_list(text: str) -> set[int]:
    """`0-2,7` as numbers (man 7 cpuset, "List format")."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.strip().partition("-")
        if not first:
            continue
        if not (first.isdecimal() and (last.isdecimal() or not last)) or len(first) > 5 or len(last) > 5:
            raise InvalidArgument(f"invalid list: {text!r}")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
