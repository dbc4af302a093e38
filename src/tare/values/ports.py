"""Port specifications as `-p` and `EXPOSE` take them, and as `ps` and `port` print them. Standard library only.

[[host address:][host port[-last]]:]container port[-last][/protocol]
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_LAST_PORT = 65535
_DIGITS = re.compile(r"(\d+)")


class PortError(ValueError):
    """A port specification that isn't one; the text is Docker's."""


class PortSpec(NamedTuple):
    """One container port to publish. host_port 0: any free one; up to host_port_last: the first free one."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_last: int = 0


class ListedPort(NamedTuple):
    """A container's port as `ps` lists it; `host_port` 0 means exposed, not published."""

    container_port: int
    protocol: str
    host_ip: str = ""
    host_port: int = 0


def parse_port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > _LAST_PORT:
        raise PortError(f"invalid port: {text}")
    return int(text)


def parse_port_range(text: str) -> tuple[int, int]:
    """`80` or `80-90`."""
    first, dash, last = text.partition("-")
    start = parse_port_number(first)
    end = parse_port_number(last) if dash else start
    if end < start:
        raise PortError(f"invalid range specified for port: {text}")
    return start, end


def parse_exposed_port(text: str) -> list[tuple[int, str]]:
    """`80`, `80/udp`, `80-90/tcp` → the ports with their protocol."""
    ports, _, protocol = text.partition("/")
    protocol = _protocol(protocol, text)
    try:
        start, end = parse_port_range(ports)
    except PortError as error:
        raise PortError(f"invalid containerPort: {ports}") from error
    return [(port, protocol) for port in range(start, end + 1)]


def parse_port_spec(text: str) -> list[PortSpec]:
    """What one `-p` asks for: a spec for each container port in it."""
    if "=" in text:
        text = _from_pairs(text)
    address, host, container = _split(text)
    container, _, protocol = container.partition("/")
    protocol = _protocol(protocol, text)
    if not container:
        raise PortError(f"no port specified: {text}<empty>")
    host_ip = _host_ip(address)
    try:
        start, end = parse_port_range(container)
    except PortError as error:
        raise PortError(f"invalid containerPort: {container}") from error
    if not host:
        return [PortSpec(port, protocol, host_ip) for port in range(start, end + 1)]
    try:
        host_start, host_end = parse_port_range(host)
    except PortError as error:
        raise PortError(f"invalid hostPort: {host}") from error
    if host_end - host_start == end - start:
        return [
            PortSpec(port, protocol, host_ip, host_start + port - start, host_start + port - start)
            for port in range(start, end + 1)
        ]
    if start != end:
        raise PortError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return [PortSpec(start, protocol, host_ip, host_start, host_end)]


def _split(text: str) -> tuple[str, str, str]:
    """Host address (which may hold colons), host port, container port."""
    front, _, container = text.rpartition(":")
    address, _, host = front.rpartition(":")
    return address, host, container


def _host_ip(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare:
        return ""
    try:
        return str(ip_address(bare))
    except ValueError as error:
        raise PortError(f"invalid IP address: {text}") from error


def _protocol(text: str, spec: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in PROTOCOL_NUMBERS:
        raise PortError(f"invalid proto: {text}")
    return protocol


def _from_pairs(text: str) -> str:
    """The long form of -p: `published=8080,target=80,protocol=udp`."""
    fields = {"published": "", "target": "", "protocol": "tcp"}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals or not value:
            raise PortError(f"invalid publish opts format (should be name=value but got '{pair}')")
        if name not in fields:
            continue
        fields[name] = value
    return f"{fields['published']}:{fields['target']}/{fields['protocol']}"


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sort key by which `9/tcp` comes before `80/tcp`."""
    parts = _DIGITS.split(text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def format_host_address(ip: str, port: int | str) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def format_ports(ports: Iterable[ListedPort]) -> str:
    """The PORTS column of `ps`. Neighbours are merged if they are published under their own number, or not at all."""
    done: list[str] = []
    mapped: list[str] = []
    open_ranges: dict[tuple[str, str], tuple[int, int]] = {}
    for port in sorted(ports, key=lambda item: (item.container_port, item.host_ip, item.host_port, item.protocol)):
        number = port.container_port
        if port.host_ip and port.host_port != number:
            mapped.append(f"{format_host_address(port.host_ip, port.host_port)}->{number}/{port.protocol}")
            continue
        key = (port.host_ip, port.protocol)
        first, last = open_ranges.get(key, (number, number))
        if number > last + 1:
            done.append(_format_range(key, first, last))
            first = number
        open_ranges[key] = (first, number)
    done += [_format_range(key, first, last) for key, (first, last) in open_ranges.items()]
    return ", ".join(done + mapped)


def _format_range(key: tuple[str, str], first: int, last: int) -> str:
    host_ip, protocol = key
    numbers = str(first) if first == last else f"{first}-{last}"
    if not host_ip:
        return f"{numbers}/{protocol}"
    return f"{format_host_address(host_ip, numbers)}->{numbers}/{protocol}"
