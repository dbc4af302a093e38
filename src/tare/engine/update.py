"""update: other limits, ports, mounts, networks and another restart policy for a container, running or not."""

from __future__ import annotations

import contextlib

import msgspec

from tare.engine import check, publish
from tare.engine.container_networks import canonical
from tare.engine.disk_limit import change_limit
from tare.engine.egress import check_egress
from tare.engine.engine import Engine, in_thread
from tare.engine.mount_change import change_mounts
from tare.engine.network_connect import connect_locked, disconnect_locked
from tare.engine.network_speed import set_speed
from tare.engine.networks import find_network
from tare.engine.oci_resources import resources
from tare.engine.options import EndpointOptions, HostOptions, ResourceOptions, UpdateOptions
from tare.engine.records import Container, EndpointState
from tare.errors import Conflict, InvalidArgument, Unsupported
from tare.runtime.cgroups import check_resources, open_cgroup

CHANGEABLE = frozenset(
    "blkio_weight cpu_shares cpu_period cpu_quota nano_cpus cpuset_cpus cpuset_mems memory memory_reservation "
    "memory_swap pids_limit restart_policy egress".split()
)
_OWN_FIELDS = frozenset(
    "publish_add publish_remove mount_add mount_remove network_add network_remove network_set storage_opt".split()
)
_RESOURCE_FIELDS = frozenset(ResourceOptions.__struct_fields__)


async def update_container(engine: Engine, ref: str, options: UpdateOptions, given: frozenset[str]) -> tuple[str, ...]:
    """Changes what was given; returns warnings. given: the names of the fields that the caller set.

    Ports, networks and mounts change all or none. Raises NotFound, Forbidden (networks), Conflict (being removed; a
    mount in use), InvalidArgument, Unsupported (what can't be changed).
    """
    container_id = engine.containers.find(ref).id
    return await engine.uninterrupted(_update(engine, container_id, options, given), f"update {container_id[:12]}")


async def _update(engine: Engine, container_id: str, options: UpdateOptions, given: frozenset[str]) -> tuple[str, ...]:
    async with engine.lock(container_id):
        container = engine.containers.find(container_id)
        if container.state.status in ("removing", "dead"):
            raise Conflict(f'container {container.id} is marked for removal and cannot be "update"')
        changes = _changes(options, given - _OWN_FIELDS)
        host = _merged(container.host, changes)
        check.check_resources(host)
        check.check_restart_policy(host.restart_policy, auto_remove=host.auto_remove)
        check_egress(host)
        limits, warnings = check_resources(resources(host, None))
        async with contextlib.AsyncExitStack() as undo:
            await _change_surroundings(engine, container_id, options, undo)
            if options.storage_opt:
                now = engine.containers.find(container_id)
                warnings += await change_limit(engine, now, options.storage_opt, undo)
            if "egress" in changes and container_id in engine.live:
                engine.network.set_egress(container_id, host.egress)
                undo.callback(engine.network.set_egress, container_id, container.host.egress)
            if engine.live.get(container.id) is not None and any(name != "restart_policy" for name in changes):
                cgroup = open_cgroup(engine.cgroup_path(container.id, host.cgroup_parent))
                await in_thread(cgroup.apply, limits)
            undo.pop_all()
        container = engine.containers.find(container.id)  # as it is now: it may have ended meanwhile
        host = msgspec.structs.replace(container.host, **changes)
        container = engine.containers.save(msgspec.structs.replace(container, host=host), durable=True)
        engine.events.container(container, "update")
        return tuple(warnings)


async def _change_surroundings(
    engine: Engine, container_id: str, options: UpdateOptions, undo: contextlib.AsyncExitStack
) -> None:
    """Ports, networks and mounts, in this order, what goes before what comes. undo: gets what takes each back."""
    container = engine.containers.find(container_id)
    if options.publish_add or options.publish_remove:
        publish.change_ports(engine, container, options.publish_add or {}, options.publish_remove or {})
        undo.callback(_ports_back, engine, container)
    for ref in options.network_remove or ():
        name = find_network(engine, ref).name
        if _is_in(engine, container_id, name) is None:
            continue  # so it is already: the same update may have been cut short
        gone = await disconnect_locked(engine, name, container_id)
        undo.push_async_callback(connect_locked, engine, name, container_id, gone.wish)
    for ref, wish in (options.network_add or {}).items():
        state = _is_in(engine, container_id, canonical(engine, ref))
        if state is not None and (state.wish or EndpointOptions()) == (wish or EndpointOptions()):
            continue
        await connect_locked(engine, ref, container_id, wish)
        undo.push_async_callback(disconnect_locked, engine, canonical(engine, ref), container_id)
    for ref, wish in (options.network_set or {}).items():
        before = await set_speed(engine, canonical(engine, ref), container_id, wish)
        undo.push_async_callback(set_speed, engine, canonical(engine, ref), container_id, before)
    await change_mounts(engine, container_id, options.mount_add or (), options.mount_remove or (), undo)


def _is_in(engine: Engine, container_id: str, network: str) -> EndpointState | None:
    endpoints = engine.containers.find(container_id).endpoints
    return next((state for state in endpoints if state.network == network), None)


def _ports_back(engine: Engine, before: Container) -> None:
    now = engine.containers.find(before.id)
    host = msgspec.structs.replace(now.host, port_bindings=before.host.port_bindings)
    publish.settle(engine, engine.containers.save(msgspec.structs.replace(now, host=host), durable=True))


def _changes(options: UpdateOptions, given: frozenset[str]) -> dict[str, object]:
    default = UpdateOptions()
    found: dict[str, object] = {}
    for name in given:
        value = getattr(options, name)
        if value == getattr(default, name):
            continue  # Docker takes the zero value for "leave it as it is"
        if name not in CHANGEABLE:
            raise Unsupported(f"option {name} can't be changed on a container")
        found[name] = value
    return found


def _merged(host: HostOptions, changes: dict[str, object]) -> HostOptions:
    if "nano_cpus" in changes and (host.cpu_quota or host.cpu_period):
        raise InvalidArgument(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota/Period has already been set"
        )
    if ("cpu_quota" in changes or "cpu_period" in changes) and host.nano_cpus:
        raise InvalidArgument(
            "Conflicting options: CPU Quota/Period cannot be updated as NanoCPUs has already been set"
        )
    memory = changes.get("memory")
    if isinstance(memory, int) and "memory_swap" not in changes and 0 < host.memory_swap < memory:
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    return msgspec.structs.replace(host, **changes)
