"""update: other limits, published ports and another restart policy for a container, running or not."""

from __future__ import annotations

import msgspec

from tare.engine import check
from tare.engine.engine import Engine, in_thread
from tare.engine.oci_resources import resources
from tare.engine.options import HostOptions, ResourceOptions, UpdateOptions
from tare.engine.publish import change_ports
from tare.errors import Conflict, InvalidArgument, Unsupported
from tare.runtime.cgroups import check_resources, open_cgroup

CHANGEABLE = frozenset(
    "blkio_weight cpu_shares cpu_period cpu_quota nano_cpus cpuset_cpus cpuset_mems memory memory_reservation "
    "memory_swap pids_limit restart_policy".split()
)
_PORT_FIELDS = frozenset(("publish_add", "publish_remove"))
_RESOURCE_FIELDS = frozenset(ResourceOptions.__struct_fields__)


async def update_container(engine: Engine, ref: str, options: UpdateOptions, given: frozenset[str]) -> tuple[str, ...]:
    """Changes what was given; returns warnings. given: the names of the fields that the caller set.

    Raises NotFound, Conflict (being removed), InvalidArgument, Unsupported (what can't be changed).
    """
    container = engine.containers.find(ref)
    async with engine.lock(container.id):
        container = engine.containers.find(container.id)
        if container.state.status in ("removing", "dead"):
            raise Conflict(f'container {container.id} is marked for removal and cannot be "update"')
        changes = _changes(options, given - _PORT_FIELDS)
        host = _merged(container.host, changes)
        check.check_resources(host)
        check.check_restart_policy(host.restart_policy, auto_remove=host.auto_remove)
        limits, warnings = check_resources(resources(host, None))
        if engine.live.get(container.id) is not None and any(name != "restart_policy" for name in changes):
            cgroup = open_cgroup(engine.cgroup_path(container.id, host.cgroup_parent))
            await in_thread(cgroup.apply, limits)
            container = engine.containers.find(container.id)  # as it is now: it may have ended meanwhile
        container = msgspec.structs.replace(container, host=host)
        if options.publish_add or options.publish_remove:
            container = change_ports(engine, container, options.publish_add or {}, options.publish_remove or {})
        else:
            container = engine.containers.save(container, durable=True)
        engine.events.container(container, "update")
        return tuple(warnings)


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
