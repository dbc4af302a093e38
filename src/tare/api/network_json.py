"""Networks, endpoints and published ports in Docker's JSON. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any

from tare.api import wire
from tare.engine.options import EndpointOptions
from tare.engine.records import Container, EndpointState, NetworkDetail, PublishedPort
from tare.values.ids import short_id
from tare.values.timestamps import format_rfc3339


def endpoint_json(endpoint: EndpointState, container: Container, version: tuple[int, int]) -> dict[str, Any]:
    """A container's place in a network, as inspect and list show it."""
    asked = endpoint.wish or EndpointOptions()
    builtin = endpoint.network in ("bridge", "host", "none")
    aliases = list(endpoint.aliases)
    if version < (1, 45) and not builtin and endpoint.network_id:
        aliases.append(short_id(container.id))  # DNSNames has it since
    made: dict[str, Any] = {
        "IPAMConfig": wire.encode(asked.ipam_config) if asked.ipam_config else None,
        "Links": list(asked.links) if asked.links else None,
        "Aliases": aliases or None,
        "DriverOpts": dict(asked.driver_opts) if asked.driver_opts else None,
    }
    if version >= (1, 48):
        made["GwPriority"] = asked.gw_priority
    made |= {
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway,
        "IPAddress": endpoint.ip_address,
        "IPPrefixLen": endpoint.prefix_length,
        "IPv6Gateway": endpoint.ipv6_gateway,
        "GlobalIPv6Address": endpoint.ipv6_address,
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix_length,
        "MacAddress": endpoint.mac_address or asked.mac_address or "",
    }
    if version >= (1, 44):
        names = (container.name, *endpoint.aliases, short_id(container.id), container.config.hostname)
        made["DNSNames"] = None if builtin else list(dict.fromkeys(name for name in names if name))
    return made


def networks_json(container: Container, version: tuple[int, int]) -> dict[str, Any]:
    """The networks of a container by name."""
    return {endpoint.network: endpoint_json(endpoint, container, version) for endpoint in container.endpoints}


def port_map(container: Container) -> dict[str, Any]:
    """NetworkSettings.Ports: exposed ports, and where they are published while the container runs."""
    if not container.state.running:
        return {}
    made: dict[str, Any] = {_port(name): None for name in container.config.exposed_ports or {}}
    for port in _published(container):
        name = f"{port.container_port}/{port.protocol}"
        if port.host_port:
            binding = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
            made[name] = [*(made.get(name) or ()), binding]
        else:
            made.setdefault(name, None)
    return made


def port_list(container: Container) -> list[dict[str, Any]]:
    """The Ports of a row of the container list."""
    if not container.state.running:
        return []
    published = [port for port in _published(container) if port.host_port]
    rows: list[dict[str, Any]] = [
        {"IP": port.host_ip, "PrivatePort": port.container_port, "PublicPort": port.host_port, "Type": port.protocol}
        for port in published
    ]
    shown = {(port.container_port, port.protocol) for port in published}
    for name in container.config.exposed_ports or {}:
        number, _, protocol = _port(name).partition("/")
        if number.isdigit() and (int(number), protocol) not in shown:
            rows.append({"PrivatePort": int(number), "Type": protocol})
    return rows


def _port(name: str) -> str:
    return name if "/" in name else f"{name}/tcp"


def _published(container: Container) -> tuple[PublishedPort, ...]:
    return tuple(port for endpoint in container.endpoints for port in endpoint.ports)


def network_json(network: NetworkDetail, version: tuple[int, int], *, listed: bool = False) -> dict[str, Any]:
    """A network, as list (which leaves the containers out since 1.28) and inspect show it."""
    config: list[dict[str, Any]] = [wire.encode(pool) for pool in network.pools]
    made_up = ((network.subnet, network.gateway), (network.subnet6, network.gateway6))
    asked_for = [ipaddress.ip_network(pool.subnet, strict=False).version for pool in network.pools]
    for kind, (subnet, gateway) in zip((4, 6), made_up, strict=True):
        if subnet and kind not in asked_for:
            config.append({"Subnet": subnet, "Gateway": gateway})
    containers = {
        container_id: {
            "Name": name,
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": endpoint.mac_address,
            "IPv4Address": f"{endpoint.ip_address}/{endpoint.prefix_length}" if endpoint.ip_address else "",
            "IPv6Address": (f"{endpoint.ipv6_address}/{endpoint.ipv6_prefix_length}" if endpoint.ipv6_address else ""),
        }
        for container_id, (name, endpoint) in network.containers.items()
    }
    made: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": format_rfc3339(network.created_ns),
        "Scope": network.scope,
        "Driver": network.driver,
        "EnableIPv6": network.ipv6,
        "IPAM": {"Driver": "default", "Options": network.address_options, "Config": config},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }
    if version >= (1, 47):
        made["EnableIPv4"] = network.ipv4
    if not listed or version < (1, 28):
        made["Containers"] = containers
    elif version < (1, 52):
        made["Containers"] = {}
    return made
