"""Writes a container's /etc/hosts, /etc/hostname and /etc/resolv.conf, which are bound into it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from tare.engine import links
from tare.engine.check import network_kind
from tare.engine.engine import Engine
from tare.engine.network_link import DEFAULT_NETWORKS
from tare.engine.records import Container, EndpointState
from tare.network.files import embedded_resolv_conf_text, hostname_text, hosts_text, own_line, resolv_conf_text
from tare.network.name_server import RESOLVER_ADDRESS
from tare.network.names import HOST_NAMES
from tare.network.records import Endpoint, EndpointRecord

HOST_RESOLV_CONF = "/etc/resolv.conf"


def write(engine: Engine, container: Container, endpoint: Endpoint | None) -> None:
    """Writes the three files anew, in place: a running container's binds keep showing them."""
    kind = network_kind(container.host.network_mode)
    if kind == "container":
        other = engine.containers.find(container.host.network_mode.partition(":")[2])
        for name in ("hostname", "hosts", "resolv.conf"):
            _write(container, name, _read(f"{other.directory}/{name}"))
        return
    config, host, settings = container.config, container.host, engine.settings
    hostname = config.hostname or socket.gethostname()
    _write(container, "hostname", hostname_text(hostname))
    if kind == "host" and not host.extra_hosts:
        hosts = _read("/etc/hosts")
    else:
        records = endpoint.records if endpoint is not None else ()
        addresses = [text for record in records for text in (record.ip, record.ip6) if text]
        gateway = next((record.gateway for record in records if record.gateway and not record.is_stacked), "")
        hosts = hosts_text(
            addresses,
            hostname,
            config.domainname,
            host.extra_hosts or (),
            host_gateway=gateway or engine.network.gateway(),
            host_names=HOST_NAMES if gateway and not _is_served(records) else (),
            host_gateway6=next((record.gateway6 for record in records if not record.is_stacked), ""),
        )
    _write(container, "hosts", hosts + links.hosts_lines(engine, container))
    if endpoint is not None and _is_served(endpoint.records):
        _write_served_resolv_conf(engine, container)
        return
    resolv = resolv_conf_text(
        _read(HOST_RESOLV_CONF),
        host.dns or settings.dns,
        host.dns_search or settings.dns_search,
        host.dns_options or settings.dns_options,
        shares_host_network=kind == "host",
    )
    _write(container, "resolv.conf", resolv)


def _is_served(records: Iterable[EndpointRecord]) -> bool:
    """Whether the engine serves names to a container: it does in networks of the user's own."""
    return any(record.network not in DEFAULT_NETWORKS for record in records)


def _write_served_resolv_conf(engine: Engine, container: Container) -> None:
    host, settings = container.host, engine.settings
    text = embedded_resolv_conf_text(
        _read(HOST_RESOLV_CONF),
        RESOLVER_ADDRESS,
        host.dns_search or settings.dns_search,
        host.dns_options or settings.dns_options,
    )
    _write(container, "resolv.conf", text)


def join(engine: Engine, container: Container, record: EndpointRecord) -> None:
    """A running container has joined a network: its own name, and who serves names to it."""
    lines = "".join(_own_line(container, text) for text in (record.ip, record.ip6) if text)
    if lines:
        hosts = _read(f"{container.directory}/hosts")
        _write(container, "hosts", hosts + lines)
    served = f"nameserver {RESOLVER_ADDRESS}\n"
    if _is_served([record]) and served not in _read(f"{container.directory}/resolv.conf"):
        _write_served_resolv_conf(engine, container)


def leave(container: Container, state: EndpointState) -> None:
    """A running container has left a network."""
    hosts = _read(f"{container.directory}/hosts")
    for text in (state.ip_address, state.ipv6_address):
        if text:
            hosts = hosts.replace(_own_line(container, text), "")
    _write(container, "hosts", hosts)


def relink(engine: Engine, container: Container) -> None:
    """Running containers that are linked to one which was started learn its address."""
    for parent in links.parents(engine, container):
        if parent.state.running:
            hosts = _read(f"{parent.directory}/hosts")
            _write(parent, "hosts", links.moved_lines(container, parent, hosts))


def _own_line(container: Container, address: str) -> str:
    return own_line(address, container.config.hostname or socket.gethostname(), container.config.domainname) + "\n"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _write(container: Container, name: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(f"{container.directory}/{name}", flags, 0o644)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        os.fchmod(fd, 0o644)
