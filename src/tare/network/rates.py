"""How fast an endpoint may be, and how late: what users write of it, and the queues at both ends of its pair of links.

to the container    a token bucket, a delay, at the      from it    the same on the host, too (outgoing.py); where the
                    host's end                                      kernel can't, at the container's end
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tare.errors import InvalidArgument, Unsupported
from tare.kernel import netlink_traffic as traffic
from tare.kernel.netlink import Request
from tare.kernel.netlink_route import RouteSocket

_OPTION = "tare.network."
RATE, BURST = _OPTION + "rate", _OPTION + "burst"
DELAY, JITTER, LOSS = _OPTION + "delay", _OPTION + "jitter", _OPTION + "loss"
OPTIONS = (RATE, BURST, DELAY, JITTER, LOSS)
_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(bit|kbit|mbit|gbit|bps|kbps|mbps|gbps)\Z")
_BURST = re.compile(r"([0-9]{1,15})([kmg]?)b?\Z")
_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|ms|us)\Z")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%\Z")
_FACTORS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}
_BINARY = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000}
_LEAST_RATE, _MOST_RATE = 1000, 50_000_000_000  # bytes a second: slower, a single packet would wait for seconds
_LEAST_BURST, _MOST_BURST = 1600, 1 << 30
_LEAST_DELAY, _MOST_DELAY = 1000, 60 * 1_000_000_000  # nanoseconds: below, the kernel's clock is too coarse
# How many packets are under way at most (a packet may be 64 kB, gathered for the network card): all of them are the
# host's memory. With a rate as many as it lets pass meanwhile, taken for small ones, but not so few that no burst fits.
_MOST_PACKETS, _FEWEST_PACKETS, _SMALL_PACKET = 1000, 64, 500
_WAITS_S = 0.05  # for tokens, as netlink_traffic.py has it


class Delay(msgspec.Struct, frozen=True):
    """Nanoseconds that a packet waits in each direction, how many more or less, and the share that is lost (0 to 1)."""

    delay_ns: int = 0
    jitter_ns: int = 0
    loss: float = 0.0


class Rate(msgspec.Struct, frozen=True):
    """Bytes a second in each direction (0: as fast as it can), and bytes that may go at once; what is late or lost."""

    rate: int = 0
    burst: int = 0
    delay: Delay | None = None


def parse_rate(options: Mapping[str, str]) -> Rate | None:
    """What an endpoint's options say of its speed and its delay; None for nothing. Raises InvalidArgument."""
    for name in options:
        if name.startswith(_OPTION) and name not in OPTIONS:
            raise InvalidArgument(f"unknown endpoint option {name}: there are {', '.join(OPTIONS)}")
    delay = _delay(options)
    text = options.get(RATE, "")
    if not text:
        if options.get(BURST):
            raise InvalidArgument(f"{BURST} needs {RATE}")
        return Rate(delay=delay) if delay is not None else None
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
    return Rate(rate, _burst(options.get(BURST, ""), rate), delay)


def _burst(text: str, rate: int) -> int:
    if not text:
        return min(max(rate // 100, 32_768), _MOST_BURST)  # ten milliseconds, or half a large packet
    found = _BURST.match(text.lower())
    size = int(found[1]) * _BINARY[found[2]] if found else 0
    if not _LEAST_BURST <= size <= _MOST_BURST:
        raise InvalidArgument(f"invalid burst: {text!r} is not between {_LEAST_BURST} bytes and 1g")
    return size


def _delay(options: Mapping[str, str]) -> Delay | None:
    delay, jitter, loss = (options.get(name, "") for name in (DELAY, JITTER, LOSS))
    if jitter and not delay:
        raise InvalidArgument(f"{JITTER} needs {DELAY}")
    if not (delay or loss):
        return None
    found = Delay(_time("delay", delay), _time("jitter", jitter), _share(loss))
    if found.jitter_ns > found.delay_ns:
        raise InvalidArgument(f"invalid jitter: {jitter} is more than the delay, {delay}")
    return found


def _time(what: str, text: str) -> int:
    if not text:
        return 0
    found = _TIME.match(text.lower())
    time_ns = int(float(found[1]) * _NANOSECONDS[found[2]]) if found else 0
    if not _LEAST_DELAY <= time_ns <= _MOST_DELAY:
        raise InvalidArgument(f"invalid {what}: {text!r} is no time between 1us and 60s (with us, ms or s)")
    return time_ns


def _share(text: str) -> float:
    if not text:
        return 0.0
    found = _SHARE.match(text)
    share = float(found[1]) / 100 if found else 0.0
    if not 0 < share <= 1:
        raise InvalidArgument(f"invalid loss: {text!r} is no share between 0% and 100%")
    return share


def check_kernel(sock: RouteSocket, rate: Rate | None) -> None:
    """Raises Unsupported for what this kernel can't do."""
    if rate is not None and rate.delay is not None and not traffic.has_netem(sock):
        raise Unsupported(
            f"{DELAY} and {LOSS} need the kernel's network emulator, the module sch_netem (CONFIG_NET_SCH_NETEM), "
            "which this kernel hasn't"
        )


def requests(index: int, rate: Rate | None, *, had: bool) -> tuple[Request, ...]:
    """Makes a link as fast and as late as that. had: whether it may be limited now."""
    if rate is None:
        return (traffic.unlimit_rate(index),) if had else ()
    delay = rate.delay
    found: list[Request] = []
    if rate.rate:
        found.append(traffic.limit_rate(index, rate.rate, rate.burst, delays=delay is not None))
    if delay is not None:
        found.append(
            traffic.delay(
                index, delay.delay_ns, delay.jitter_ns, delay.loss, _packets(rate, delay), in_bucket=bool(rate.rate)
            )
        )
    return tuple(found)


def _packets(rate: Rate, delay: Delay) -> int:
    if not rate.rate:
        return _MOST_PACKETS
    size = rate.rate * ((delay.delay_ns + delay.jitter_ns) / 1e9 + _WAITS_S) + rate.burst
    return min(max(int(size / _SMALL_PACKET), _FEWEST_PACKETS), _MOST_PACKETS)
