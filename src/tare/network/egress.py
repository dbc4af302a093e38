"""What a container may send to: `none`, or `allow=` and subnets, addresses and names, with a port or without. Pure.

It must never let through what it doesn't understand: such a policy is refused as a whole.

    allow=10.0.0.0/8,192.0.2.7:443,[2001:db8::1]:443,example.com:443,*.example.org
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence

import msgspec

from tare.errors import InvalidArgument

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_MOST_TARGETS = 1000


class Target(msgspec.Struct, frozen=True):
    """Where a container may send to: a subnet or a name (one is empty), at a port or, if 0, whatever it sends."""

    subnet: Subnet | None = None
    name: str = ""
    port: int = 0


class Policy(msgspec.Struct, frozen=True):
    """All that is allowed."""

    targets: tuple[Target, ...] = ()

    @property
    def has_names(self) -> bool:
        return any(target.name for target in self.targets)

    def ports_of(self, name: str) -> frozenset[int]:
        """The ports at which a name (lower case, without the last dot) is allowed; 0 among them: at all."""
        return frozenset(target.port for target in self.targets if target.name and _is_called(target.name, name))

    def ports_at(self, address: Ip) -> frozenset[int]:
        """The ports at which an address is allowed by a subnet."""
        return frozenset(
            target.port
            for target in self.targets
            if target.subnet is not None and target.subnet.version == address.version and address in target.subnet
        )


@functools.lru_cache(256)  # asked for with every question for a name
def parse_policy(text: str) -> Policy | None:
    """A policy; None for "" and "all", which allow everything. Raises InvalidArgument."""
    if text in ("", "all"):
        return None
    if text == "none":
        return Policy()
    kind, _, rest = text.partition("=")
    if kind != "allow" or not rest:
        raise InvalidArgument(f"invalid egress policy: {text!r} is none of none, all and allow=TARGET[,TARGET...]")
    words = [word.strip() for word in rest.split(",")]
    if len(words) > _MOST_TARGETS:
        raise InvalidArgument(f"invalid egress policy: more than {_MOST_TARGETS} targets")
    return Policy(tuple(dict.fromkeys(_target(word) for word in words)))


def both(one: Policy | None, other: Policy | None) -> tuple[Policy, ...]:
    """The policies that hold together: what is sent has to be allowed by each."""
    return tuple(policy for policy in (one, other) if policy is not None)


def allowed_subnets(policies: Sequence[Policy]) -> list[tuple[Subnet, int]]:
    """Subnets, with a port or 0 for all, that every policy allows."""
    found: list[tuple[Subnet, int]] | None = None
    for policy in policies:
        own = [(target.subnet, target.port) for target in policy.targets if target.subnet is not None]
        found = own if found is None else [part for one in found for other in own if (part := _overlap(one, other))]
    return list(dict.fromkeys(found or ()))


def named_ports(policies: Sequence[Policy], name: str, address: Ip) -> frozenset[int]:
    """The ports at which an address may be sent to because it was found under a name; 0 among them: all."""
    left = frozenset((0,))
    for policy in policies:
        left = _common(left, policy.ports_of(name) | policy.ports_at(address))
    return left


def may_ask(policies: Sequence[Policy], name: str) -> bool:
    """Whether a name may be looked up outside: each policy names it."""
    return all(policy.ports_of(name) for policy in policies)


def _target(word: str) -> Target:
    wrong = InvalidArgument(f"invalid egress target: {word!r} is no subnet, address or name, with or without a port")
    place, port = word, 0
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", word)
    if bracketed:
        place, port = bracketed[1], _port(bracketed[2], wrong)
    elif word.count(":") == 1:
        place, _, digits = word.partition(":")
        port = _port(digits, wrong)
    try:
        return Target(subnet=ipaddress.ip_network(place), port=port)
    except ValueError:
        pass
    name = place.lower().rstrip(".")
    if bracketed or len(name) > 253 or not _NAME.match(name) or name.rpartition(".")[2].isdigit():
        raise wrong
    return Target(name=name, port=port)


def _port(digits: str | None, wrong: InvalidArgument) -> int:
    if digits is None:
        return 0
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6 and 0 < int(digits) < 65536):
        raise wrong
    return int(digits)


def _is_called(pattern: str, name: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _overlap(one: tuple[Subnet, int], other: tuple[Subnet, int]) -> tuple[Subnet, int] | None:
    (subnet, port), (second, second_port) = one, other
    if (
        subnet.version != second.version
        or not subnet.overlaps(second)
        or (port and second_port and port != second_port)
    ):
        return None
    return (subnet if subnet.prefixlen >= second.prefixlen else second), port or second_port


def _common(one: frozenset[int], other: frozenset[int]) -> frozenset[int]:
    if 0 in one:
        return other
    return one if 0 in other else one & other
