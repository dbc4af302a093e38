"""-p and --expose: from the user's text to the API's ExposedPorts and PortBindings."""

from __future__ import annotations

from tare.cli.create.checks import address_of
from tare.cli.flagkinds import split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    Bindings = dict[str, list[dict[str, str]]]

PROTOCOLS = ("tcp", "udp", "sctp")


class BadPort(ValueError):
    pass


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise BadPort(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    value = int(text)
    if value > 65535:
        raise BadPort(f'strconv.ParseUint: parsing "{text}": value out of range')
    return value


def parse_range(text: str) -> tuple[int, int]:
    if not text:
        raise BadPort("empty string specified for ports")
    first, separator, last = text.partition("-")
    start = _number(first)
    end = _number(last) if separator else start
    if end < start:
        raise BadPort(f"invalid range specified for port: {text}")
    return start, end


def split_protocol(text: str) -> tuple[str, str]:
    """(protocol, port)"""
    port, separator, protocol = text.partition("/")
    if not port:
        return "", ""
    return (protocol.lower() if separator and protocol else "tcp"), port


def _split_address(text: str) -> tuple[str, str, str]:
    """(host address, host port, container port) of [ADDRESS:][HOST:]CONTAINER."""
    rest, _, container = text.rpartition(":")
    address, _, host = rest.rpartition(":")
    return address, host, container


def publish(items: list[str]) -> tuple[dict[str, object], Bindings]:
    """(ExposedPorts, PortBindings) of all -p values."""
    exposed: dict[str, object] = {}
    bindings: Bindings = {}
    for item in items:
        for port, binding in parse_publish(_short_form(item)):
            exposed[port] = {}
            bindings.setdefault(port, []).append(binding)
    return exposed, bindings


def _short_form(text: str) -> str:
    """The long form (target=80,published=8080,protocol=tcp) in the short one's words."""
    if "=" not in text:
        return text
    values = {"target": "", "published": "", "protocol": "tcp"}
    for field in split_csv(text):
        name, separator, value = field.partition("=")
        if not separator or not value:
            raise BadPort(f"invalid publish opts format (should be name=value but got '{field}')")
        values[name] = value
    return f"{values['published']}:{values['target']}/{values['protocol']}"


def parse_publish(text: str) -> list[tuple[str, dict[str, str]]]:
    """One -p: the container ports and where each is bound on the host."""
    protocol, ports = split_protocol(text)
    address, host, container = _split_address(ports)
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address:
        try:
            address_of(address)
        except ValueError:
            raise BadPort(f"invalid IP address: {address}") from None
    if not container:
        raise BadPort(f"no port specified: {text}<empty>")
    try:
        start, end = parse_range(container)
    except BadPort:
        raise BadPort(f"invalid containerPort: {container}") from None
    host_start = host_end = 0
    if host:
        try:
            host_start, host_end = parse_range(host)
        except BadPort:
            raise BadPort(f"invalid hostPort: {host}") from None
    if host and end - start != host_end - host_start and (end != start or host_end < host_start):
        raise BadPort(f"invalid ranges specified for container and host Ports: {container} and {host}")
    if protocol not in PROTOCOLS:
        raise BadPort(f"invalid proto: {protocol}")
    found = []
    for offset in range(end - start + 1):
        host_text = str(host_start + offset) if host else ""
        if host and start == end and host_start != host_end:
            host_text = f"{host_start}-{host_end}"  # the engine picks one of the range
        found.append((f"{start + offset}/{protocol}", {"HostIp": address, "HostPort": host_text}))
    return found


def expose(items: list[str]) -> dict[str, object]:
    exposed: dict[str, object] = {}
    for item in items:
        if ":" in item:
            raise BadPort(f"invalid port format for --expose: {item}")
        protocol, port = split_protocol(item)
        try:
            start, end = parse_range(port)
        except BadPort as error:
            raise BadPort(f"invalid range format for --expose: {item}, error: {error}") from None
        if protocol not in PROTOCOLS:
            raise BadPort(f"invalid proto: {protocol}")
        for number in range(start, end + 1):
            exposed[f"{number}/{protocol}"] = {}
    return exposed
