"""-p and --expose: the API's ExposedPorts and PortBindings."""

from __future__ import annotations

from tare.values.ports import PortError, parse_exposed_port, parse_port_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    Bindings = dict[str, list[dict[str, str]]]


def publish(items: list[str]) -> tuple[dict[str, object], Bindings]:
    """(ExposedPorts, PortBindings) of all -p values. Raises ValueError with Docker's text."""
    exposed: dict[str, object] = {}
    bindings: Bindings = {}
    for item in items:
        for port, protocol, host_ip, host_port in parse_port_spec(item):
            exposed[f"{port}/{protocol}"] = {}
            bindings.setdefault(f"{port}/{protocol}", []).append({"HostIp": host_ip, "HostPort": host_port})
    return exposed, bindings


def expose(items: list[str]) -> dict[str, object]:
    """ExposedPorts of all --expose values. Raises ValueError with Docker's text."""
    exposed: dict[str, object] = {}
    for item in items:
        if ":" in item:
            raise PortError(f"invalid port format for --expose: {item}")
        try:
            found = parse_exposed_port(item)
        except PortError as error:
            if str(error).startswith("invalid proto"):
                raise
            raise PortError(f"invalid range format for --expose: {item}, error: {error}") from None
        exposed.update((f"{number}/{protocol}", {}) for number, protocol in found)
    return exposed
