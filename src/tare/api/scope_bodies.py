"""What the body of a request may say on a scoped socket. Decodes as the operation does, and hands on what it checked.

Options are allowed by name: one that is new, here or in Docker, is refused until somebody has thought about it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from tare.api import wire
from tare.api.container_bodies import CreateBody, parse_create
from tare.engine.mount_specs import parse_bind, parse_volumes_from
from tare.engine.network_options import ConnectOptions, DisconnectOptions, NetworkOptions
from tare.engine.options import ContainerConfig, ExecOptions, HostOptions, MountOptions, NetworkingOptions
from tare.errors import Forbidden, NotFound

if TYPE_CHECKING:
    from tare.api.call import Call
    from tare.api.scope import Scope
    from tare.engine.engine import Engine
    from tare.engine.records import Container

FREE = frozenset(
    "auto_remove blkio_weight cap_drop console_size container_id_file cpu_period cpu_quota cpu_shares "
    "cpuset_cpus cpuset_mems dns dns_options dns_search egress extra_hosts group_add health_on_failure init isolation "
    "kernel_memory memory memory_reservation memory_swap memory_swappiness nano_cpus pids_limit port_bindings "
    "publish_all_ports readonly_rootfs restart_policy shm_size tmpfs ulimits".split()
)
"""Options of HostConfig that touch nothing but the container and its share of the machine."""
CHECKED = frozenset(
    "binds cgroupns_mode depends_on ipc_mode links log_config masked_paths mounts network_mode oom_score_adj pid_mode "
    "readonly_paths runtime security_opt volume_driver volumes_from".split()
)
"""Options of which some values are allowed; all that are in neither set must be empty."""
LOCAL_LOGS = ("", "json-file", "local", "none")
LOCAL_LOG_OPTIONS = frozenset("max-size max-file compress mode max-buffer-size labels env tag".split())
NETWORK_FIELDS = frozenset(
    "name check_duplicate driver attachable internal enable_ipv4 enable_ipv6 ipam labels".split()
)


def _refuse(what: str) -> Forbidden:
    return Forbidden(f"{what} is not allowed on this socket")


def _container(scope: Scope, engine: Engine, ref: str) -> Container:
    """A container that another is to be tied to. 403, not 404: to that, Docker's client pulls the image."""
    try:
        return scope.container(engine, ref)
    except NotFound as error:
        raise _refuse(f"container {ref}") from error


def _check_volume(scope: Scope, engine: Engine, name: str) -> None:
    try:
        scope.check_volume(engine, name)
    except NotFound as error:
        raise _refuse(f"volume {name}") from error


def _check_network(scope: Scope, engine: Engine, name: str) -> None:
    try:
        scope.network_id(engine, name)
    except NotFound as error:
        raise _refuse(f"network {name}") from error


def _check_resolvers(engine: Engine, host: HostOptions, networks: Iterable[str]) -> None:
    """A resolver of one's own choice would say which addresses a network's egress policy means by its names."""
    bound = {key for one in engine.network.networks() if one.egress for key in (one.name, one.network_id)}
    for name in networks if host.dns else ():
        if any(key.startswith(name) for key in bound if name):
            raise _refuse(f"option Dns in network {name}, which has an egress policy,")


async def _create(scope: Scope, call: Call) -> dict[str, Any]:
    """POST /containers/create. What was made of the body is checked once more as the operation will read it."""
    body = _checked(scope, call.engine, *parse_create(await call.json()))
    document = wire.encode(body)
    _checked(scope, call.engine, *parse_create(document))
    return document


def _checked(
    scope: Scope, engine: Engine, config: ContainerConfig, host: HostOptions, networking: NetworkingOptions
) -> CreateBody:
    """The body with the scope's labels, and with containers by their full ids."""
    for field in HostOptions.__struct_fields__:
        if field not in FREE and field not in CHECKED and getattr(host, field):
            raise _refuse(f"option {wire.json_key(field)}")
    _check_values(host)
    _check_mounts(scope, engine, host)
    changes: dict[str, Any] = {}
    for field in ("network_mode", "ipc_mode", "pid_mode"):
        changes[field] = _mode(scope, engine, field, getattr(host, field))
    if host.volumes_from:
        changes["volumes_from"] = tuple(_inherited(scope, engine, text) for text in host.volumes_from)
    for text in (*(host.depends_on or ()), *(host.links or ())):
        _container(scope, engine, text.partition(":")[0])
    for name in networking.endpoints_config or {}:
        _check_network(scope, engine, "bridge" if name == "default" else name)
    _check_resolvers(engine, host, {changes["network_mode"], *(networking.endpoints_config or {})})
    host = msgspec.structs.replace(host, **changes)
    config = msgspec.structs.replace(config, labels={**(config.labels or {}), **scope.labels})
    return CreateBody(**_fields(config), host_config=host, networking_config=networking)


def _fields(record: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _check_values(host: HostOptions) -> None:
    for field in ("masked_paths", "readonly_paths"):
        if getattr(host, field) is not None:  # an empty list lifts the masks
            raise _refuse(f"option {wire.json_key(field)}")
    if host.oom_score_adj < 0:
        raise _refuse("a negative OomScoreAdj")
    if host.cgroupns_mode not in ("", "private"):
        raise _refuse(f"cgroup namespace mode {host.cgroupns_mode}")
    if host.runtime not in ("", "tare"):
        raise _refuse(f"runtime {host.runtime}")
    if host.volume_driver not in ("", "local"):
        raise _refuse(f"volume driver {host.volume_driver}")
    for option in host.security_opt or ():
        if option not in ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"):
            raise _refuse(f"security option {option.partition('=')[0]}")
    log = host.log_config
    if log is not None:  # a log server is a connection from the host, and files of the host as keys
        if log.type not in LOCAL_LOGS:
            raise _refuse(f"log driver {log.type}")
        for name in log.config or {}:
            if name not in LOCAL_LOG_OPTIONS:
                raise _refuse(f"log option {name}")


def _mode(scope: Scope, engine: Engine, field: str, mode: str) -> str:
    """A namespace's mode, with the container that it names as its full id."""
    kind, separator, ref = mode.partition(":")
    if kind == "container" and separator:
        return f"container:{_container(scope, engine, ref).id}"
    if field == "network_mode":
        if mode in ("", "default", "bridge", "none"):
            return mode
        if mode == "host":
            raise _refuse("network mode host")
        _check_network(scope, engine, mode)
        return mode
    if mode not in ("", "private", "shareable", "none"):
        raise _refuse(f"{field.partition('_')[0]} mode {mode}")
    return mode


def _inherited(scope: Scope, engine: Engine, text: str) -> str:
    ref, _ = parse_volumes_from(text)
    _, colon, mode = text.partition(":")
    return _container(scope, engine, ref).id + colon + mode


def _check_mounts(scope: Scope, engine: Engine, host: HostOptions) -> None:
    for text in host.binds or ():
        point = parse_bind(text).point
        if point.type != "volume":
            raise _refuse("a bind mount of the host")
        if point.name:
            _check_volume(scope, engine, point.name)
    for mount in host.mounts or ():
        _check_mount(scope, engine, mount)


def _check_mount(scope: Scope, engine: Engine, mount: MountOptions) -> None:
    if mount.type not in ("volume", "tmpfs"):
        raise _refuse(f"a mount of type {mount.type}")
    options = mount.volume_options
    if options is not None and options.driver_config:
        raise _refuse("a volume with driver options")
    if mount.type == "volume" and mount.source:
        _check_volume(scope, engine, mount.source)


async def _exec(scope: Scope, call: Call) -> dict[str, Any]:
    """POST /containers/{id}/exec."""
    options = wire.decode(ExecOptions, await call.json())
    if options.privileged:
        raise _refuse("a privileged exec")
    return wire.encode(options)


async def _volume(scope: Scope, call: Call) -> dict[str, Any]:
    """POST /volumes/create: options of the local driver mount what they name."""
    from tare.api.volumes import VolumeCreateBody

    body = wire.decode(VolumeCreateBody, await call.json())
    if body.driver not in ("", "local") or body.driver_opts or body.cluster_volume_spec:
        raise _refuse("a volume with a driver or driver options")
    if body.name and body.name in {volume.name for volume in call.engine.volumes}:
        scope.check_volume(call.engine, body.name)  # creating one that is there answers with it
    return wire.encode(msgspec.structs.replace(body, labels={**(body.labels or {}), **scope.labels}))


async def _network(scope: Scope, call: Call) -> dict[str, Any]:
    """POST /networks/create: options name links of the host."""
    options = wire.decode(NetworkOptions, await call.json())
    for field in NetworkOptions.__struct_fields__:
        if field not in NETWORK_FIELDS and getattr(options, field) and getattr(options, field) != "local":
            raise _refuse(f"network option {wire.json_key(field)}")
    if options.driver not in ("", "bridge"):
        raise _refuse(f"network driver {options.driver}")
    if options.enable_ipv6 and not any(network.subnet6 for network in call.engine.network.networks()):
        raise _refuse("the first network with IPv6")  # the host would forward IPv6 from then on, on all its links
    addresses = options.ipam
    if addresses is not None and (addresses.config or addresses.options or addresses.driver not in ("", "default")):
        raise _refuse("a network with addresses of its own choice")  # it would draw the host's traffic to these
    return wire.encode(msgspec.structs.replace(options, labels={**(options.labels or {}), **scope.labels}))


async def _connect(scope: Scope, call: Call) -> dict[str, Any]:
    """POST /networks/{id}/connect."""
    options = wire.decode(ConnectOptions, await call.json())
    found = scope.container(call.engine, options.container)
    _check_resolvers(call.engine, found.host, (call.path["id"],))
    return wire.encode(msgspec.structs.replace(options, container=found.id))


async def _disconnect(scope: Scope, call: Call) -> dict[str, Any]:
    """POST /networks/{id}/disconnect."""
    options = wire.decode(DisconnectOptions, await call.json())
    found = scope.container(call.engine, options.container)
    return wire.encode(msgspec.structs.replace(options, container=found.id))


RULES: dict[str, Callable[[Scope, Call], Awaitable[dict[str, Any]]]] = {
    "ContainerCreate": _create,
    "ContainerExec": _exec,
    "VolumeCreate": _volume,
    "NetworkCreate": _network,
    "NetworkConnect": _connect,
    "NetworkDisconnect": _disconnect,
}
