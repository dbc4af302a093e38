"""network connect and disconnect: of containers that run, and of those that will."""

from __future__ import annotations

from tare.engine import etc_files, network_link
from tare.engine.check import network_kind
from tare.engine.container_networks import SHARED_TEXT, check_multiple, wanted_endpoint
from tare.engine.engine import Engine
from tare.engine.networks import find_network
from tare.engine.options import EndpointOptions
from tare.engine.records import Container, EndpointState
from tare.errors import Conflict, Forbidden, InvalidArgument, NotFound


async def connect_container(engine: Engine, network_ref: str, ref: str, wish: EndpointOptions | None) -> None:
    """Puts a container into one more network, at once if it runs.

    Raises NotFound, Forbidden (it is in it), InvalidArgument, Conflict, with Docker's texts.
    """
    if not ref:
        raise InvalidArgument('invalid name or ID supplied: ""')
    container_id = engine.containers.find(ref).id
    work = _connect(engine, network_ref, container_id, wish)
    await engine.uninterrupted(work, f"connect {container_id[:12]}")


async def _connect(engine: Engine, network_ref: str, container_id: str, wish: EndpointOptions | None) -> None:
    async with engine.lock(container_id):
        await connect_locked(engine, network_ref, container_id, wish)


async def connect_locked(engine: Engine, network_ref: str, container_id: str, wish: EndpointOptions | None) -> None:
    """The same for a caller that holds the container's lock, and isn't cancelled."""
    network = find_network(engine, network_ref)
    container = engine.containers.find(container_id)
    _check_own_namespace(container)
    if any(state.network == network.name for state in container.endpoints):
        raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
    check_multiple(container.endpoints, network.name)
    state = wanted_endpoint(engine, network.name, wish)
    if container_id not in engine.live:
        engine.containers.save(network_link.with_states(container, (*container.endpoints, state)), durable=True)
        return
    request = network_link.endpoint_request(container, state, engine.settings.dns, not container.endpoints)
    if not any(found.ports for found in container.endpoints):
        request = network_link.with_ports(request, container)
    record = await engine.network.connect(container_id, request)
    container = engine.containers.find(container_id)
    container = network_link.with_states(container, (*container.endpoints, state))
    container = network_link.with_records(container, engine.network.endpoints_of(container_id))
    engine.containers.save(container, durable=True)
    etc_files.join(engine, container, record)
    found = next(item for item in container.endpoints if item.network_id == record.network_id)
    network_link.publish_one(engine.events, container_id, found, "connect")


async def disconnect_container(engine: Engine, network_ref: str, ref: str, *, force: bool) -> None:
    """Takes a container off a network, at once if it runs. Raises NotFound, Forbidden (it isn't in it), Conflict."""
    network = find_network(engine, network_ref)
    try:
        container_id = engine.containers.find(ref).id
    except NotFound:
        if force:
            raise NotFound(f"endpoint {ref} not found") from None
        raise
    await engine.uninterrupted(_disconnect(engine, network.name, container_id), f"disconnect {container_id[:12]}")


async def _disconnect(engine: Engine, network: str, container_id: str) -> None:
    async with engine.lock(container_id):
        await disconnect_locked(engine, network, container_id)


async def disconnect_locked(engine: Engine, network: str, container_id: str) -> EndpointState:
    """The same for a caller that holds the container's lock; returns the endpoint that was. network: its name."""
    container = engine.containers.find(container_id)
    _check_own_namespace(container)
    if network == "host":
        raise InvalidArgument(
            "cannot disconnect container from host network - container was created in host network mode"
        )
    gone = next((state for state in container.endpoints if state.network == network), None)
    if gone is None:
        which = "network" if container_id in engine.live else "the network"  # Docker's two texts
        raise Forbidden(f"container {container.id} is not connected to {which} {network}")
    if container_id in engine.live and gone.network_id:
        await engine.network.disconnect(container_id, gone.network_id)
    container = engine.containers.find(container_id)
    kept = [state for state in container.endpoints if state.network != network]
    container = network_link.with_states(container, kept)
    if container_id in engine.live:
        container = network_link.with_records(container, engine.network.endpoints_of(container_id))
        etc_files.leave(container, gone)
    engine.containers.save(container, durable=True)
    if gone.endpoint_id:
        network_link.publish_one(engine.events, container_id, gone, "disconnect")
    return gone


def _check_own_namespace(container: Container) -> None:
    if network_kind(container.host.network_mode) == "container":
        raise InvalidArgument(SHARED_TEXT)
    if container.state.status in ("removing", "dead"):
        raise Conflict(f"Container {container.id} is marked for removal and cannot be connected or disconnected")
