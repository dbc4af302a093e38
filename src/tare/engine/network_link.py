"""Between the engine's records and the network room's: what a container asks for, and what it got. Pure."""

from __future__ import annotations

import msgspec

from tare.engine.check import check_host_port, network_kind, parse_port
from tare.engine.events import Events
from tare.engine.options import PortBinding
from tare.engine.records import Container, EndpointState, PublishedPort
from tare.network.records import EndpointRecord, EndpointRequest, PortRequest


def endpoint_request(container: Container) -> EndpointRequest:
    """What a container wants of the network. Raises InvalidArgument for a wrong port."""
    kind = network_kind(container.host.network_mode)
    return EndpointRequest(
        mode=kind,
        container_name=container.name,
        ports=tuple(_port_requests(container)) if kind == "bridge" else (),
        mac=container.config.mac_address or None,
    )


def _port_requests(container: Container) -> list[PortRequest]:
    found: list[PortRequest] = []
    bindings = container.host.port_bindings or {}
    for text, wanted in bindings.items():
        port, protocol = parse_port(text)
        found.extend(_port_request(port, protocol, binding) for binding in wanted or (PortBinding(),))
    if container.host.publish_all_ports:
        for text in container.config.exposed_ports or {}:
            if text not in bindings:
                port, protocol = parse_port(text)
                found.append(PortRequest(port, protocol))
    return found


def _port_request(port: int, protocol: str, binding: PortBinding) -> PortRequest:
    return PortRequest(port, protocol, binding.host_ip, *check_host_port(binding.host_port))


def endpoint_state(record: EndpointRecord) -> EndpointState:
    """What inspect shows of an endpoint."""
    return EndpointState(
        network=record.network,
        network_id=record.network_id,
        endpoint_id=record.endpoint_id,
        ip_address=record.ip,
        prefix_length=record.prefix,
        gateway=record.gateway,
        mac_address=record.mac,
        ports=tuple(
            PublishedPort(
                container_port=binding.container_port,
                protocol=binding.protocol,
                host_ip=binding.host_ip,
                host_port=binding.host_port,
            )
            for binding in record.ports
        ),
    )


def disconnected(container: Container) -> Container:
    """The container's record once it has left its network: the network's name stays, the addresses go."""
    endpoint = container.endpoint
    if endpoint is None:
        return container
    left = EndpointState(network=endpoint.network, network_id=endpoint.network_id, aliases=endpoint.aliases)
    return msgspec.structs.replace(container, endpoint=left)


def publish(events: Events, container: Container, action: str) -> None:
    """Tells that a container joined or left its network."""
    endpoint = container.endpoint
    if endpoint is not None and endpoint.network_id:
        kind = "bridge" if endpoint.network == "bridge" else {"none": "null"}.get(endpoint.network, endpoint.network)
        attributes = {"container": container.id, "name": endpoint.network, "type": kind}
        events.publish("network", action, endpoint.network_id, attributes)
