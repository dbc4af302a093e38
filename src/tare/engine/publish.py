"""Published ports of a container that may be running: added and taken back (`update`; Tare's own)."""

from __future__ import annotations

import msgspec

from tare import faults
from tare.engine import network_link
from tare.engine.check import check_host_port, network_kind, parse_port
from tare.engine.engine import Engine
from tare.engine.options import HostOptions, PortBinding
from tare.engine.records import Container, PublishedPort
from tare.errors import InvalidArgument, NotFound
from tare.network import records as network_records

PortMap = dict[str, tuple[PortBinding, ...] | None]


def change_ports(engine: Engine, container: Container, add: PortMap, remove: PortMap) -> Container:
    """Takes ports back, then publishes others, at once if the container runs; returns its record, not stored yet.

    In `remove` a binding without host port or address means all of that container port. On failure everything is as
    it was. The caller holds the container's lock. Raises InvalidArgument, NotFound, ResourceExhausted.
    """
    if network_kind(container.host.network_mode) not in ("bridge", "custom"):
        raise InvalidArgument(f"ports can't be published in network mode {container.host.network_mode}")
    add, remove = _normal(add), _normal(remove)
    kept, gone = _split(container.host.port_bindings or {}, remove)
    if container.id in engine.live:
        bound = [port for state in container.endpoints for port in state.ports]
        for port in remove:
            if not any(_matches(port, remove, item) for item in map(_as_binding, bound)):
                raise NotFound(f"container {container.name} doesn't publish port {port} so")
        engine.network.unpublish(container.id, lambda item: any(_matches(port, remove, item) for port in remove))
        faults.point("engine.publish.removed")
        try:
            if add:
                engine.network.publish(container.id, tuple(network_link.parse_bindings(add)))
        except BaseException:
            if gone:
                engine.network.publish(container.id, tuple(network_link.parse_bindings(gone)))
            raise
        container = network_link.with_records(container, engine.network.endpoints_of(container.id))
    elif len(gone) < len(remove):
        missing = next(port for port in remove if port not in gone)
        raise NotFound(f"container {container.name} doesn't publish port {missing} so")
    for port, bindings in add.items():
        kept[port] = (*(kept.get(port) or ()), *(bindings or (PortBinding(),)))
    host: HostOptions = msgspec.structs.replace(container.host, port_bindings=kept)
    return msgspec.structs.replace(container, host=host)


def _normal(ports: PortMap) -> PortMap:
    """Keys with a protocol; wrong ones are refused before anything is changed."""
    made: PortMap = {}
    for text, bindings in ports.items():
        number, protocol = parse_port(text)
        for binding in bindings or ():
            check_host_port(binding.host_port)
        made[f"{number}/{protocol}"] = bindings
    return made


def _split(bindings: PortMap, remove: PortMap) -> tuple[PortMap, PortMap]:
    """(what stays, what goes) of a container's own bindings."""
    kept: PortMap = {}
    gone: PortMap = {}
    for port, own in _normal(bindings).items():
        number, protocol = parse_port(port)
        for binding in own or (PortBinding(),):
            low, _ = check_host_port(binding.host_port)
            item = network_records.PortBinding(number, protocol, binding.host_ip, low)
            target = gone if _matches(port, remove, item) else kept
            target[port] = (*(target.get(port) or ()), binding)
    return kept, gone


def _matches(port: str, remove: PortMap, item: network_records.PortBinding) -> bool:
    """Whether what is to be taken back of one container port means a binding."""
    if port not in remove or port != f"{item.container_port}/{item.protocol}":
        return False
    return any(
        check_host_port(wanted.host_port)[0] in (0, item.host_port)
        and (wanted.host_ip or item.host_ip or "0.0.0.0") == (item.host_ip or "0.0.0.0")
        for wanted in remove[port] or (PortBinding(),)
    )


def _as_binding(port: PublishedPort) -> network_records.PortBinding:
    return network_records.PortBinding(port.container_port, port.protocol, port.host_ip, port.host_port)
