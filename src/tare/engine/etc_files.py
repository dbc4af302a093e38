"""Writes a container's /etc/hosts, /etc/hostname and /etc/resolv.conf, which are bound into it."""

from __future__ import annotations

import os
import socket

from tare.engine.check import network_kind
from tare.engine.engine import Engine
from tare.engine.records import Container
from tare.network.files import hostname_text, hosts_text, resolv_conf_text
from tare.network.records import Endpoint

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
        addresses = [endpoint.ip] if endpoint is not None and endpoint.ip else []
        hosts = hosts_text(
            addresses, hostname, config.domainname, host.extra_hosts or (), host_gateway=engine.network.gateway()
        )
    _write(container, "hosts", hosts)
    resolv = resolv_conf_text(
        _read(HOST_RESOLV_CONF),
        host.dns or settings.dns,
        host.dns_search or settings.dns_search,
        host.dns_options or settings.dns_options,
        shares_host_network=kind == "host",
    )
    _write(container, "resolv.conf", resolv)


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
