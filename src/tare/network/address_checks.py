"""Whether the addresses that a user asks for a network fit each other; all that is wrong is told at once. Pure.

It must never look at what is taken: that is for who chooses (user_networks.py). The texts are Docker 25's and later.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from tare.errors import InvalidArgument
from tare.network.records import AddressOptions

_Prefix = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def check_addresses(addresses: Iterable[AddressOptions], *, versions: Iterable[int]) -> None:
    """Raises InvalidArgument. versions: of IP, that the network has; subnets of another are not looked at."""
    wanted = tuple(versions)
    found = [fault for asked in addresses for fault in _faults(asked, wanted)]
    if found:
        raise InvalidArgument("\n".join(("invalid network config:", *found)))


def _faults(asked: AddressOptions, versions: tuple[int, ...]) -> Iterator[str]:
    subnet = _prefix(asked.subnet)
    if subnet is None:
        yield f"invalid subnet {asked.subnet}: invalid CIDR block notation"
        return
    if subnet.version not in versions:
        return
    if subnet.ip != subnet.network.network_address:
        yield f"invalid subnet {asked.subnet}: it should be {subnet.network}"
    if asked.ip_range:
        yield from (f"invalid ip-range {asked.ip_range}: {fault}" for fault in _range_faults(asked.ip_range, subnet))
    for what, text in (("gateway", asked.gateway.partition("/")[0]), *_named(asked)):
        fault = _address_fault(text, subnet) if text else ""
        if fault:
            yield f"invalid {what}{f' {text}' if what == 'gateway' else ''}: {fault}"


def _named(asked: AddressOptions) -> list[tuple[str, str]]:
    return [(f"auxiliary address {name}", text) for name, text in asked.aux.items()]


def _range_faults(text: str, subnet: _Prefix) -> Iterator[str]:
    found = _prefix(text)
    if found is None:
        yield "invalid CIDR block notation"
    elif found.version != subnet.version:
        yield f"parent subnet is an IPv{subnet.version} block"
    else:
        if found.network.prefixlen < subnet.network.prefixlen:
            yield f"CIDR block is bigger than its parent subnet {subnet.network}"
        if found.ip != found.network.network_address:
            yield f"it should be {found.network}"
        if not found.network.overlaps(subnet.network):
            yield f"parent subnet {subnet.network} doesn't contain ip-range"


def _address_fault(text: str, subnet: _Prefix) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "invalid address"
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    return "" if address in subnet.network else f"parent subnet {subnet.network} doesn't contain this address"


def _prefix(text: str) -> _Prefix | None:
    if not text.partition("/")[2].isdecimal():
        return None
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        return None
