"""Published ports of a container that may be running: added and taken back (`update`; Tare's own).

What the container's record says is what is to be; `settle` makes the network room agree with it, after a change as
after a crash.
"""

from __future__ import annotations

import msgspec

from tare import faults
from tare.engine import network_link
from tare.engine.check import check_host_port, network_kind, parse_port
from tare.engine.engine import Engine
from tare.engine.options import HostOptions, PortBinding
from tare.engine.records import Container
from tare.errors import InvalidArgument, NotFound
from tare.network import records as network_records
from tare.network.records import PortRequest

PortMap = dict[str, tuple[PortBinding, ...] | None]


def change_ports(engine: Engine, container: Container, add: PortMap, remove: PortMap) -> Container:
    """Takes ports back and publishes others, at once if the container runs; stores and returns its record.

    In `remove` a binding without host port or address means all of that container port. On failure everything is as
    it was. The caller holds the container's lock. Raises InvalidArgument, NotFound, ResourceExhausted.
    """
    if network_kind(container.host.network_mode) not in ("bridge", "custom"):
        raise InvalidArgument(f"ports can't be published in network mode {container.host.network_mode}")
    add, remove = _normal(add), _normal(remove)
    kept, gone = _split(container.host.port_bindings or {}, remove)
    for port in remove:
        if port not in gone:
            raise NotFound(f"container {container.name} doesn't publish port {port} so")
    for port, bindings in add.items():
        kept[port] = (*(kept.get(port) or ()), *(bindings or (PortBinding(),)))
    host: HostOptions = msgspec.structs.replace(container.host, port_bindings=kept)
    changed = engine.containers.save(msgspec.structs.replace(container, host=host), durable=True)
    faults.point("engine.publish.stored")
    try:
        return settle(engine, changed)
    except BaseException:
        settle(engine, engine.containers.save(container, durable=True))
        raise


def settle(engine: Engine, container: Container) -> Container:
    """Makes a running container's published ports those that its record asks for; returns its record, stored."""
    if container.id not in engine.live or network_kind(container.host.network_mode) not in ("bridge", "custom"):
        return container
    present: dict[tuple[int, str], list[network_records.PortBinding]] = {}  # a range may have thousands of ports
    for record in engine.network.endpoints_of(container.id):
        for port in record.ports:
            present.setdefault((port.container_port, port.protocol), []).append(port)
    missing = []
    for request in sorted(network_link.port_requests(container), key=_breadth):
        own = present.get((request.container_port, request.protocol), [])
        found = next((port for port in own if _answers(request, port)), None)
        if found is None:
            missing.append(request)
        else:
            own[:] = [port for port in own if port != found and not _is_twin(port, found, request)]
    superfluous = {port for own in present.values() for port in own}
    if superfluous:
        engine.network.unpublish(container.id, superfluous.__contains__)
        faults.point("engine.publish.removed")
    if missing:
        engine.network.publish(container.id, tuple(missing))
    if not superfluous and not missing:
        return container
    return engine.containers.save(network_link.with_records(container, engine.network.endpoints_of(container.id)))


def _breadth(request: PortRequest) -> tuple[bool, bool, int]:
    """Requests that say most come first: a broad one would take what a narrow one needs."""
    return not request.host_port, not request.host_ip, request.host_port_last


def _answers(request: PortRequest, port: network_records.PortBinding) -> bool:
    """Whether a port that is published is what was asked for."""
    last = max(request.host_port, request.host_port_last)
    return (
        (request.container_port, request.protocol) == (port.container_port, port.protocol)
        and request.host_ip in ("", port.host_ip)
        and (not request.host_port or not port.host_port or request.host_port <= port.host_port <= last)
    )


def _is_twin(port: network_records.PortBinding, found: network_records.PortBinding, request: PortRequest) -> bool:
    """Whether a port is the IPv6 side of one that was asked for at all addresses."""
    return (
        not request.host_ip and port.host_ip == "::" and msgspec.structs.replace(port, host_ip=found.host_ip) == found
    )


def _normal(ports: PortMap) -> PortMap:
    """Keys with a protocol; wrong ones are refused before anything is changed."""
    made: PortMap = {}
    for text, bindings in ports.items():
        number, protocol = parse_port(text)
        for binding in bindings or ():
            check_host_port(binding.host_port)
        made[f"{number}/{protocol}"] = (*(made.get(f"{number}/{protocol}") or ()), *(bindings or (PortBinding(),)))
    return made


def _split(bindings: PortMap, remove: PortMap) -> tuple[PortMap, PortMap]:
    """(what stays, what goes) of a container's own bindings."""
    kept: PortMap = {}
    gone: PortMap = {}
    for port, own in _normal(bindings).items():
        for binding in own or ():
            target = gone if any(_means(wanted, binding) for wanted in remove.get(port) or ()) else kept
            target[port] = (*(target.get(port) or ()), binding)
    return kept, gone


def _means(wanted: PortBinding, binding: PortBinding) -> bool:
    """Whether what is to be taken back means a binding."""
    return wanted.host_port in ("", binding.host_port) and wanted.host_ip in ("", binding.host_ip)
