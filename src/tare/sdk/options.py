"""A container's options as Python has them, into the body of `POST /containers/create`. Raises ValueError. No I/O."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, cast

from tare.sdk.records import Health
from tare.values.units import parse_bytes

HostPort = int | tuple[str, int] | None
Command = str | Sequence[str]


class ContainerOptions(TypedDict, total=False):
    """What `run`, `container` and `containers.create` take beside image and command. Each is Docker's own, renamed."""

    name: str
    environment: Mapping[str, str] | Sequence[str]
    ports: Mapping[
        int | str, HostPort
    ]  # {80: 8080, "53/udp": ("127.0.0.1", 5353), 443: 0}; 0, None: the engine chooses
    publish_all: bool
    volumes: Mapping[str, str] | Sequence[str]  # {"/host/or/name": "/target[:ro]"}, or ["source:/target[:ro]"]
    tmpfs: Mapping[str, str] | Sequence[str]  # {"/run": "size=16m"}, or ["/run"]
    labels: Mapping[str, str]
    user: str
    working_dir: str
    hostname: str
    entrypoint: Command
    network: str
    egress: str  # "none", or "allow=10.0.0.0/8,example.com:443"; Tare only
    aliases: Sequence[str]
    extra_hosts: Mapping[str, str]
    dns: Sequence[str]
    memory: int | str  # bytes, or "256m"
    memory_swap: int | str
    shm_size: int | str
    disk: int | str  # what its own files may take on the disk, where the engine's file system can limit that
    cpus: float
    pids_limit: int
    restart: str  # "no", "always", "unless-stopped", "on-failure[:most]"
    read_only: bool
    privileged: bool
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    security_opt: Sequence[str]
    userns: str  # "host"; "private" (ids that no other container has), Tare only
    devices: Sequence[str]  # "/dev/fuse[:/dev/fuse[:rwm]]"
    sysctls: Mapping[str, str]
    ulimits: Mapping[str, int | tuple[int, int]]
    init: bool
    tty: bool
    stdin_open: bool
    health: Health
    stop_signal: str
    stop_timeout: int
    log_driver: str
    log_options: Mapping[str, str]
    auto_remove: bool
    extra_config: Mapping[str, Any]  # merged into the body as it is, for what has no name here
    extra_host_config: Mapping[str, Any]


# name here → (where, name there); plain values, taken over as they are
_CONFIG = {
    "user": "User",
    "working_dir": "WorkingDir",
    "hostname": "Hostname",
    "labels": "Labels",
    "tty": "Tty",
    "stop_signal": "StopSignal",
    "stop_timeout": "StopTimeout",
}
_HOST_CONFIG = {
    "publish_all": "PublishAllPorts",
    "dns": "Dns",
    "pids_limit": "PidsLimit",
    "read_only": "ReadonlyRootfs",
    "privileged": "Privileged",
    "cap_add": "CapAdd",
    "cap_drop": "CapDrop",
    "security_opt": "SecurityOpt",
    "userns": "UsernsMode",
    "sysctls": "Sysctls",
    "init": "Init",
    "auto_remove": "AutoRemove",
    "network": "NetworkMode",
    "egress": "Egress",
}
_SIZES = {"memory": "Memory", "memory_swap": "MemorySwap", "shm_size": "ShmSize"}
_KNOWN = frozenset(ContainerOptions.__annotations__)
_NS = 1_000_000_000


def words(command: Command | None) -> list[str] | None:
    """A command's words; text is split as a shell would, without running one."""
    if command is None:
        return None
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def size_bytes(value: int | str) -> int:
    """A size in bytes."""
    if isinstance(value, int):
        return value
    try:
        return parse_bytes(value)
    except Exception as error:
        raise ValueError(str(error)) from None


def create_body(image: str, command: Command | None, options: ContainerOptions) -> dict[str, Any]:
    """The request's body; `name` is not in it."""
    unknown = sorted(set(options) - _KNOWN)
    if unknown:
        raise TypeError(f"unknown container option: {', '.join(unknown)}")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    body: dict[str, Any] = {"Image": image}
    host: dict[str, Any] = {}
    for name, value in given.items():
        if name in _CONFIG:
            body[_CONFIG[name]] = _plain(value)
        elif name in _HOST_CONFIG:
            host[_HOST_CONFIG[name]] = _plain(value)
        elif name in _SIZES:
            host[_SIZES[name]] = size_bytes(value)
        elif name in _MAKERS:
            _MAKERS[name](value, body, host)
    if command is not None:
        body["Cmd"] = words(command)
    if "aliases" in given:
        place = {"Aliases": list(given["aliases"])}
        body["NetworkingConfig"] = {"EndpointsConfig": {given.get("network", "default"): place}}
    body.update(given.get("extra_config") or {})
    body["HostConfig"] = {**host, **(given.get("extra_host_config") or {})}
    return body


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): str(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def environment_list(value: Mapping[str, str] | Sequence[str]) -> list[str]:
    """["A=1"], of that or of {"A": "1"}."""
    return [f"{name}={item}" for name, item in value.items()] if isinstance(value, Mapping) else list(value)


def _environment(value: Any, body: dict[str, Any], _host: dict[str, Any]) -> None:
    body["Env"] = environment_list(value)


def _entrypoint(value: Any, body: dict[str, Any], _host: dict[str, Any]) -> None:
    body["Entrypoint"] = words(value)


def _stdin(value: Any, body: dict[str, Any], _host: dict[str, Any]) -> None:
    body["OpenStdin"] = bool(value)


def port_name(port: int | str) -> str:
    """ "80/tcp", of 80, "80" or "80/tcp"."""
    number, _, protocol = str(port).partition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise ValueError(f"invalid container port: {port!r}")
    return f"{int(number)}/{protocol or 'tcp'}"


def _ports(value: Any, body: dict[str, Any], host: dict[str, Any]) -> None:
    body["ExposedPorts"], host["PortBindings"] = {}, {}
    for port, place in value.items():
        address, number = place if isinstance(place, tuple) else ("", place)
        name = port_name(port)
        body["ExposedPorts"][name] = {}
        host["PortBindings"][name] = [{"HostIp": address, "HostPort": str(number or "")}]


def _volumes(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host["Binds"] = (
        [f"{source}:{target}" for source, target in value.items()] if isinstance(value, Mapping) else [*value]
    )


def _tmpfs(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host["Tmpfs"] = dict(value) if isinstance(value, Mapping) else dict.fromkeys(value, "")


def _extra_hosts(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host["ExtraHosts"] = [f"{name}:{address}" for name, address in value.items()]


def _cpus(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host["NanoCpus"] = round(value * _NS)


def _disk(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host["StorageOpt"] = {"size": str(size_bytes(value))}


def restart_policy(text: str) -> dict[str, Any]:
    """{"Name": "on-failure", "MaximumRetryCount": 3}, of "on-failure:3"."""
    name, colon, most = text.partition(":")
    if colon and not most.isdecimal():
        raise ValueError(f"invalid restart policy: {text!r}")
    return {"Name": name, "MaximumRetryCount": int(most)} if colon else {"Name": name}


def _restart(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host["RestartPolicy"] = restart_policy(value)


def _devices(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host["Devices"] = []
    for text in value:
        source, _, rest = text.partition(":")
        target, _, allowed = rest.partition(":")
        if rest and not rest.startswith("/"):
            target, allowed = "", rest
        device = {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": allowed or "rwm"}
        host["Devices"].append(device)


def _ulimits(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host["Ulimits"] = []
    for name, limit in value.items():
        soft, hard = limit if isinstance(limit, tuple) else (limit, limit)
        host["Ulimits"].append({"Name": name, "Soft": soft, "Hard": hard})


def _health(value: Any, body: dict[str, Any], _host: dict[str, Any]) -> None:
    test = ["CMD-SHELL", value.test] if isinstance(value.test, str) else ["CMD", *value.test]
    check: dict[str, Any] = {"Test": test}
    for name, amount in (
        ("Interval", value.interval_s),
        ("Timeout", value.timeout_s),
        ("StartPeriod", value.start_period_s),
    ):
        if amount is not None:
            check[name] = round(amount * _NS)
    if value.retries is not None:
        check["Retries"] = value.retries
    body["Healthcheck"] = check


def _log_driver(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host.setdefault("LogConfig", {})["Type"] = value


def _log_options(value: Any, _body: dict[str, Any], host: dict[str, Any]) -> None:
    host.setdefault("LogConfig", {})["Config"] = dict(value)


_MAKERS = {
    "environment": _environment,
    "entrypoint": _entrypoint,
    "stdin_open": _stdin,
    "ports": _ports,
    "volumes": _volumes,
    "tmpfs": _tmpfs,
    "extra_hosts": _extra_hosts,
    "cpus": _cpus,
    "disk": _disk,
    "restart": _restart,
    "devices": _devices,
    "ulimits": _ulimits,
    "health": _health,
    "log_driver": _log_driver,
    "log_options": _log_options,
}


class Limits(TypedDict, total=False):
    """What `update` can change of a container. mount … disk: an engine of Tare's only, all or none of it."""

    mount: Mapping[str, str]  # {"/host/or/name": "/target[:ro]"}
    unmount: Sequence[str]  # places inside
    connect: Sequence[str]  # names of networks
    disconnect: Sequence[str]
    disk: int | str  # 0: no limit any more
    memory: int | str
    memory_swap: int | str
    cpus: float
    pids_limit: int
    restart: str


def update_body(limits: Limits) -> dict[str, Any]:
    """The body of `POST /containers/…/update`."""
    allowed = set(Limits.__annotations__)
    if set(limits) - allowed:
        raise TypeError(f"can't be updated: {', '.join(sorted(set(limits) - allowed))}")
    own = {name: limits[name] for name in _OWN_CHANGES if name in limits}  # type: ignore[literal-required]
    rest = {name: value for name, value in limits.items() if name not in own}
    body: dict[str, Any] = create_body("", None, cast(ContainerOptions, rest))["HostConfig"]
    for name, (key, made) in _OWN_CHANGES.items():
        if name in own:
            body[key] = made(own[name])
    return body


def _mount(source: str, place: str) -> dict[str, Any]:
    target, _, mode = place.partition(":")
    kind = "bind" if source.startswith("/") else "volume"
    return {"Type": kind, "Source": source, "Target": target, "ReadOnly": mode == "ro"}


_OWN_CHANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "mount": ("MountAdd", lambda mounts: [_mount(source, place) for source, place in mounts.items()]),
    "unmount": ("MountRemove", list),
    "connect": ("NetworkAdd", dict.fromkeys),
    "disconnect": ("NetworkRemove", list),
}
