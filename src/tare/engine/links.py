"""Links of old (`--link`): on the default bridge, others by an alias in /etc/hosts and in the environment.

In networks of the user's own, names are served, and HostConfig's links mean nothing, as in Docker.
"""

from __future__ import annotations

import msgspec

from tare.engine.check import network_kind
from tare.engine.engine import Engine
from tare.engine.network_link import parse_link
from tare.engine.records import Container
from tare.errors import Conflict, InvalidArgument, NotFound
from tare.network.records import BRIDGE
from tare.values.ids import short_id

_UNTOLD = ("HOME", "PATH")  # of a linked container's environment, what says nothing of it


def resolved(engine: Engine, container: Container) -> Container:
    """A new container with its links as they are kept: `/other:/its own name/alias`.

    Raises InvalidArgument (a network mode that rules links out, no such container), with Docker's texts.
    """
    links = container.host.links
    if not links:
        return container
    kind = network_kind(container.host.network_mode)
    if kind in ("host", "container"):
        what = "host type networking" if kind == "host" else "container type network"
        text = f"conflicting options: {what} can't be used with links. This would result in undefined behavior"
        raise InvalidArgument(text)
    kept = []
    for link in links if kind == "bridge" else ():
        name, alias = parse_link(link)
        try:
            other = engine.containers.find(name)
        except NotFound as error:
            # Not 404, at which clients pull the image and try again (moby#39823).
            raise InvalidArgument(f"could not get container for {name}: {error}") from error
        if network_kind(other.host.network_mode) == "host":
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            )
        kept.append(f"/{other.name}:/{container.name}/{alias.rpartition('/')[2]}")
    return _with_links(container, tuple(kept))


def _with_links(container: Container, links: tuple[str, ...]) -> Container:
    return msgspec.structs.replace(container, host=msgspec.structs.replace(container.host, links=links or None))


def _linked(engine: Engine, container: Container) -> list[tuple[Container, str]]:
    """The containers that one is linked to, with their aliases; those that are gone are left out."""
    found = []
    for link in container.host.links or ():
        name, _, alias = link.partition(":")
        try:
            found.append((engine.containers.find(name.removeprefix("/")), alias.rpartition("/")[2]))
        except NotFound:
            continue
    return found


def check_startable(engine: Engine, container: Container) -> None:
    """Raises Conflict, with Docker's text, if a container is linked to one that doesn't run."""
    for other, alias in _linked(engine, container):
        if not other.state.running:
            raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")


def with_environment(engine: Engine, container: Container) -> Container:
    """The container with what its links put into its environment; what it sets itself comes after and wins."""
    told = [line for other, alias in _linked(engine, container) for line in _environment(container, other, alias)]
    if not told:
        return container
    env = (*told, *(container.config.env or ()))
    return msgspec.structs.replace(container, config=msgspec.structs.replace(container.config, env=env))


def _environment(container: Container, other: Container, alias: str) -> list[str]:
    prefix, address = alias.upper().replace("-", "_"), _address(other)
    made = []
    ports = sorted({*(other.config.exposed_ports or ()), *(other.host.port_bindings or ())}, key=_port_order)
    if ports and address:
        number, _, protocol = ports[0].partition("/")
        made.append(f"{prefix}_PORT={protocol or 'tcp'}://{address}:{number}")
    made += _ranges(prefix, address, ports) if address else []
    for port in ports if address else ():
        number, _, protocol = port.partition("/")
        protocol = protocol or "tcp"
        name = f"{prefix}_PORT_{number}_{protocol.upper()}"
        made.append(f"{name}={protocol}://{address}:{number}")
        made += [f"{name}_ADDR={address}", f"{name}_PORT={number}", f"{name}_PROTO={protocol}"]
    made.append(f"{prefix}_NAME=/{container.name}/{alias}")
    for line in other.config.env or ():
        key, sign, value = line.partition("=")
        if sign and key not in _UNTOLD:
            made.append(f"{prefix}_ENV_{key}={value}")
    return made


def _ranges(prefix: str, address: str, ports: list[str]) -> list[str]:
    """What tells of two and more ports in a row at once, by the first one's number. ports: in order."""
    parsed = [
        (int(number.partition("-")[0]), protocol or "tcp")
        for number, _, protocol in (port.partition("/") for port in ports)
    ]
    made, at = [], 0
    while at < len(parsed):
        first, last = parsed[at], at
        while last + 1 < len(parsed) and parsed[last + 1][0] <= first[0] + last + 1 - at:
            last += 1
        if last > at:
            end = parsed[last]
            name, until = (f"{prefix}_PORT_{first[0]}_{protocol.upper()}" for protocol in (first[1], end[1]))
            made += [f"{name}_START={first[1]}://{address}:{first[0]}", f"{name}_ADDR={address}"]
            made += [f"{name}_PROTO={first[1]}", f"{name}_PORT_START={first[0]}"]
            made += [f"{until}_END={end[1]}://{address}:{end[0]}", f"{until}_PORT_END={end[0]}"]
            at = last
        at += 1
    return made


def _port_order(port: str) -> tuple[int, bool]:
    number, _, protocol = port.partition("/")
    return (int(number.partition("-")[0]), protocol not in ("", "tcp"))


def _address(container: Container) -> str:
    states = (state for state in container.endpoints if state.network == BRIDGE)
    return next((state.ip_address for state in states), "")


def hosts_lines(engine: Engine, container: Container) -> str:
    """Lines for /etc/hosts: address, alias, and the other names of each linked container."""
    lines = []
    for other, alias in _linked(engine, container):
        address = _address(other)
        if address:
            lines.append(f"{address}\t{_names(other, alias)}\n")
    return "".join(lines)


def _names(other: Container, alias: str) -> str:
    hostname = other.config.hostname or short_id(other.id)
    return " ".join(dict.fromkeys((alias, hostname, other.name)))


def moved_lines(other: Container, parent: Container, hosts: str) -> str:
    """A running parent's /etc/hosts, with the address that a container has since it was started again."""
    aliases = [link.rpartition("/")[2] for link in parent.host.links or () if link.startswith(f"/{other.name}:")]
    for alias in aliases:
        names = _names(other, alias)
        kept = [line for line in hosts.splitlines(keepends=True) if not line.endswith(f"\t{names}\n")]
        hosts = "".join([*kept, f"{_address(other)}\t{names}\n"])
    return hosts


def parents(engine: Engine, container: Container) -> list[Container]:
    """The containers that are linked to one."""
    start = f"/{container.name}:"
    return [one for one in engine.containers if any(link.startswith(start) for link in one.host.links or ())]


def rename(engine: Engine, container: Container, old: str) -> None:
    """A container has another name: its links, and those to it, bear it."""
    changes = (f"/{old}:", f"/{container.name}:"), (f":/{old}/", f":/{container.name}/")
    for one in list(engine.containers):
        links = one.host.links or ()
        renamed = []
        for link in links:
            if link.startswith(changes[0][0]):
                link = link.replace(*changes[0], 1)
            if one.id == container.id:
                link = link.replace(*changes[1], 1)
            renamed.append(link)
        if tuple(renamed) != tuple(links):
            engine.containers.save(_with_links(one, tuple(renamed)))


def remove_link(engine: Engine, ref: str) -> None:
    """Takes away the link `container/alias`. Raises Conflict, NotFound, with Docker's texts."""
    name, _, alias = ref.strip("/").rpartition("/")
    if not name:
        raise Conflict("Conflict, cannot remove the default link name of the container")
    try:
        parent = engine.containers.find(name)
    except NotFound as error:
        raise NotFound(f"Cannot get parent /{name} for link /{name}/{alias}") from error
    kept = tuple(link for link in parent.host.links or () if not link.endswith(f":/{parent.name}/{alias}"))
    if len(kept) == len(parent.host.links or ()):
        raise NotFound(f"No such link: /{name}/{alias}")
    engine.containers.save(_with_links(parent, kept), durable=True)
