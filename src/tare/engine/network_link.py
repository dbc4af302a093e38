"""Between the engine's records and the network room's: what a container asks for, and what it got. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tare.engine.check import check_host_port, network_kind, parse_port
from tare.engine.events import Events
from tare.engine.options import EndpointOptions, PortBinding
from tare.engine.records import Container, EndpointState, PublishedPort
from tare.network.rates import parse_rate
from tare.network.records import BRIDGE, HOST, IPVLAN, NONE, EndpointRecord, EndpointRequest, PortRequest
from tare.values.ids import short_id

LINK_NAME = "com.docker.network.endpoint.ifname"
DEFAULT_NETWORKS = (BRIDGE, HOST, NONE)


def endpoint_requests(container: Container, nameservers: Sequence[str] = ()) -> tuple[EndpointRequest, ...]:
    """What a container wants of each of its networks. Raises InvalidArgument for a wrong port.

    nameservers: whom to ask for names that no container has, unless the container says otherwise.
    """
    states = container.endpoints
    if not states:  # it was disconnected from all of them
        states = (EndpointState(network=first_network(container.host.network_mode)),)
    return tuple(endpoint_request(container, state, nameservers, place == 0) for place, state in enumerate(states))


def endpoint_request(
    container: Container, state: EndpointState, nameservers: Sequence[str] = (), is_first: bool = True
) -> EndpointRequest:
    """What a container wants of one network; its published ports stand in the first one's."""
    wish = state.wish or EndpointOptions()
    mac = wish.mac_address or (container.config.mac_address if is_first else "")
    return EndpointRequest(
        mode=state.network,
        container_name=container.name,
        ports=tuple(port_requests(container)) if is_first and state.network not in (HOST, NONE) else (),
        mac=mac or None,
        ip=wish.ipam_config.ipv4_address if wish.ipam_config else "",
        ip6=wish.ipam_config.ipv6_address if wish.ipam_config else "",
        names=names_in(container, state) if state.network not in DEFAULT_NETWORKS else (),
        links=tuple(parse_link(link) for link in wish.links or ()),
        nameservers=tuple(container.host.dns or nameservers),
        link_locals=tuple(wish.ipam_config.link_local_ips or ()) if wish.ipam_config else (),
        priority=wish.gw_priority,
        egress=container.host.egress,
        rate=parse_rate(wish.driver_opts or {}),
        inside=(wish.driver_opts or {}).get(LINK_NAME, ""),
    )


def with_ports(request: EndpointRequest, container: Container) -> EndpointRequest:
    """The same request, and the container's published ports with it."""
    return msgspec.structs.replace(request, ports=tuple(port_requests(container)))


def names_in(container: Container, state: EndpointState) -> tuple[str, ...]:
    """What others find a container by in a network of the user's own."""
    names = (container.name, *state.aliases, short_id(container.id), container.config.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def parse_link(text: str) -> tuple[str, str]:
    """`name:alias` or `name`, as (name, alias)."""
    name, _, alias = text.partition(":")
    name = name.removeprefix("/")
    return name, alias or name


def first_network(mode: str) -> str:
    """The network that a network mode names; "" for one that has no network of its own."""
    kind = network_kind(mode)
    return {"bridge": BRIDGE, "container": ""}.get(kind, mode)


def port_requests(container: Container) -> list[PortRequest]:
    """The ports that a container wants published. Raises InvalidArgument."""
    bindings = container.host.port_bindings or {}
    found = parse_bindings(bindings)
    if container.host.publish_all_ports:
        for text in container.config.exposed_ports or {}:
            if text not in bindings:
                port, protocol = parse_port(text)
                found.append(PortRequest(port, protocol))
    return found


def parse_bindings(bindings: dict[str, tuple[PortBinding, ...] | None]) -> list[PortRequest]:
    """Port bindings by container port. Raises InvalidArgument."""
    found: list[PortRequest] = []
    for text, wanted in bindings.items():
        port, protocol = parse_port(text)
        found.extend(
            PortRequest(port, protocol, binding.host_ip, *check_host_port(binding.host_port))
            for binding in wanted or (PortBinding(),)
        )
    return found


def endpoint_state(record: EndpointRecord, asked: EndpointState | None = None) -> EndpointState:
    """What inspect shows of an endpoint. asked: the state of before, for what was asked.

    An ipvlan link has no MAC of its own, nor on layer 3 a gateway: Docker shows neither.
    """
    return EndpointState(
        network=record.network,
        network_id=record.network_id,
        endpoint_id=record.endpoint_id,
        ip_address=record.ip,
        prefix_length=record.prefix,
        gateway="" if record.routed_by_parent else record.gateway,
        ipv6_address=record.ip6,
        ipv6_prefix_length=record.prefix6,
        ipv6_gateway="" if record.routed_by_parent else record.gateway6,
        mac_address="" if record.driver == IPVLAN else record.mac,
        driver=record.driver,
        aliases=asked.aliases if asked is not None else (),
        wish=asked.wish if asked is not None else None,
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


def with_records(container: Container, records: Sequence[EndpointRecord]) -> Container:
    """The container's record with its endpoints as the network room has them."""
    asked = {name: state for state in container.endpoints for name in (state.network, state.network_id)}
    states = [
        endpoint_state(record, asked.get(record.network) or asked.get(record.network_id) or None) for record in records
    ]
    return with_states(container, states)


def with_states(container: Container, states: Sequence[EndpointState]) -> Container:
    """The container's record with other endpoints."""
    return msgspec.structs.replace(container, endpoint=states[0] if states else None, more_endpoints=tuple(states[1:]))


def disconnected(container: Container) -> Container:
    """The container's record once it has left its networks: their names stay, the addresses go."""
    return with_states(container, [left(state) for state in container.endpoints])


def left(state: EndpointState) -> EndpointState:
    """An endpoint of a container that doesn't run."""
    return EndpointState(network=state.network, network_id=state.network_id, aliases=state.aliases, wish=state.wish)


def publish(events: Events, container: Container, action: str) -> None:
    """Tells that a container joined or left its networks."""
    for state in container.endpoints:
        if state.network_id:
            publish_one(events, container.id, state, action)


def publish_one(events: Events, container_id: str, state: EndpointState, action: str) -> None:
    """Tells that a container joined or left one network."""
    kind = {NONE: "null", HOST: "host"}.get(state.network) or state.driver or "bridge"
    attributes = {"container": container_id, "name": state.network, "type": kind}
    events.publish("network", action, state.network_id, attributes)
