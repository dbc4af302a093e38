"""Port specifications as `-p` and `--expose` take them. Loads nothing: the command line starts with it.

[[host address:][host port[-last]]:]container port[-last][/protocol], or published=8080,target=80,protocol=udp
"""

from __future__ import annotations

import _socket

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_LAST_PORT = 65535

PortSpec = tuple[int, str, str, str]
"""Container port, protocol, host address ("" for any), host port ("": any; "8000-8010": the first free one)."""


class PortError(ValueError):
    """A port specification that isn't one; the text is Docker's."""


def parse_port_number(text: str) -> int:
    """A port. Raises PortError in the words of Go's strconv, which clients show."""
    if not (text.isascii() and text.isdigit()):
        raise PortError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > _LAST_PORT:
        raise PortError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def parse_port_range(text: str) -> tuple[int, int]:
    """`80` or `80-90`."""
    if not text:
        raise PortError("empty string specified for ports")
    first, dash, last = text.partition("-")
    start = parse_port_number(first)
    end = parse_port_number(last) if dash else start
    if end < start:
        raise PortError(f"invalid range specified for port: {text}")
    return start, end


def parse_exposed_port(text: str) -> list[tuple[int, str]]:
    """`80`, `80/udp`, `80-90/tcp`: the ports with their protocol."""
    ports, _, protocol = text.partition("/")
    start, end = parse_port_range(ports)
    protocol = _protocol(protocol)
    return [(port, protocol) for port in range(start, end + 1)]


def parse_port_spec(text: str) -> list[PortSpec]:
    """What one `-p` asks for: a spec for each container port in it."""
    if "=" in text:
        text = _from_pairs(text)
    address, host, container = _split(text)
    container, _, protocol = container.partition("/")
    host_ip = _host_ip(address)
    if not container:
        raise PortError(f"no port specified: {text}<empty>")
    start, end = _range(container, "containerPort")
    host_start, host_end = _range(host, "hostPort") if host else (0, 0)
    if host and start != end and end - start != host_end - host_start:
        raise PortError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    protocol = _protocol(protocol)
    if not host:
        return [(port, protocol, host_ip, "") for port in range(start, end + 1)]
    if start == end and host_start != host_end:
        return [(start, protocol, host_ip, f"{host_start}-{host_end}")]
    return [(port, protocol, host_ip, str(host_start + port - start)) for port in range(start, end + 1)]


def _range(text: str, what: str) -> tuple[int, int]:
    try:
        return parse_port_range(text)
    except PortError:
        raise PortError(f"invalid {what}: {text}") from None


def _split(text: str) -> tuple[str, str, str]:
    """Host address (which may hold colons), host port, container port."""
    front, _, container = text.rpartition(":")
    address, _, host = front.rpartition(":")
    return address, host, container


def _host_ip(text: str) -> str:
    address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if address:
        try:
            _socket.inet_pton(_socket.AF_INET6 if ":" in address else _socket.AF_INET, address)
        except (OSError, ValueError):
            raise PortError(f"invalid IP address: {address}") from None
    return address


def _protocol(text: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in PROTOCOL_NUMBERS:
        raise PortError(f"invalid proto: {protocol}")
    return protocol


def _from_pairs(text: str) -> str:
    """The long form of -p in the short one's words; what it says beside (mode, host_ip) Docker passes over, too."""
    fields = {"published": "", "target": "", "protocol": "tcp"}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals or not value:
            raise PortError(f"invalid publish opts format (should be name=value but got '{pair}')")
        fields[name] = value
    return f"{fields['published']}:{fields['target']}/{fields['protocol']}"
