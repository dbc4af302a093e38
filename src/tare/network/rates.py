"""How fast an endpoint may be: what users write of it, and the queues at both ends of its pair of links.

to the container    a token bucket at the host's end      from it    one on the host, too (outgoing.py); where the
                                                                     kernel can't, one at the container's end
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tare.errors import InvalidArgument, Unsupported
from tare.kernel import netlink_traffic as traffic
from tare.kernel.netlink import Request

RATE, BURST, DELAY = "tare.network.rate", "tare.network.burst", "tare.network.delay"
_OPTION = "tare.network."
_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(bit|kbit|mbit|gbit|bps|kbps|mbps|gbps)\Z")
_BURST = re.compile(r"([0-9]{1,15})([kmg]?)b?\Z")
_FACTORS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}
_BINARY = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LEAST_RATE, _MOST_RATE = 1000, 50_000_000_000  # bytes a second: slower, a single packet would wait for seconds
_LEAST_BURST, _MOST_BURST = 1600, 1 << 30


class Rate(msgspec.Struct, frozen=True):
    """Bytes a second in each direction, and bytes that may go at once."""

    rate: int
    burst: int


def parse_rate(options: Mapping[str, str]) -> Rate | None:
    """What an endpoint's options say of its speed; None for nothing. Raises InvalidArgument, Unsupported."""
    for name in options:
        if name == DELAY:
            raise Unsupported(f"{DELAY}: Tare doesn't delay packets (it would need the kernel's netem)")
        if name.startswith(_OPTION) and name not in (RATE, BURST):
            raise InvalidArgument(f"unknown endpoint option {name}: there are {RATE} and {BURST}")
    text = options.get(RATE, "")
    if not text:
        if options.get(BURST):
            raise InvalidArgument(f"{BURST} needs {RATE}")
        return None
    found = _RATE.match(text.lower())
    if found is None:
        raise InvalidArgument(
            f"invalid rate: {text!r} is no number with bit, kbit, mbit, gbit, bps, kbps, mbps or gbps"
        )
    unit = found[2]
    rate = int(float(found[1]) * _FACTORS[unit[:-3] if unit.endswith(("bit", "bps")) else ""])
    if unit.endswith("bit"):
        rate //= 8
    if not _LEAST_RATE <= rate <= _MOST_RATE:
        raise InvalidArgument(f"invalid rate: {text} is not between 8kbit and 400gbit")
    return Rate(rate, _burst(options.get(BURST, ""), rate))


def _burst(text: str, rate: int) -> int:
    if not text:
        return min(max(rate // 100, 32_768), _MOST_BURST)  # ten milliseconds, or half a large packet
    found = _BURST.match(text.lower())
    size = int(found[1]) * _BINARY[found[2]] if found else 0
    if not _LEAST_BURST <= size <= _MOST_BURST:
        raise InvalidArgument(f"invalid burst: {text!r} is not between {_LEAST_BURST} bytes and 1g")
    return size


def requests(index: int, rate: Rate | None, *, had: bool) -> tuple[Request, ...]:
    """Makes a link as fast as that. had: whether it may be limited now."""
    if rate is not None:
        return (traffic.limit_rate(index, rate.rate, rate.burst),)
    return (traffic.unlimit_rate(index),) if had else ()
