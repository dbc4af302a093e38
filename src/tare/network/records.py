"""The network room's records: settings, what is asked for, what was made, what is stored. Pure."""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

Mode = Literal["bridge", "host", "none"]

BRIDGE, HOST, NONE = "bridge", "host", "none"


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine does its default network.

    subnet: the bridge's address with its prefix (as `--bip`), or a subnet whose first address the bridge then takes;
    None: the first of `address_pools` that is free here. table: the nftables table (family inet), this engine's alone.
    """

    enabled: bool = True
    bridge_name: str = "tare0"
    subnet: str | None = None
    address_pools: tuple[str, ...] = ()
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    firewall: bool = True
    default_bind_address: str = "0.0.0.0"
    table: str = "tare"
    warm_namespaces: int = 3


class PortRequest(msgspec.Struct, frozen=True):
    """A container port to publish. host_port 0: any free one; a larger host_port_last: the first free in the range."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_last: int = 0


class PortBinding(msgspec.Struct, frozen=True):
    """A container port as it is published."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class EndpointRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a container wants of the network."""

    mode: Mode = "bridge"
    container_name: str = ""
    ports: tuple[PortRequest, ...] = ()
    mac: str | None = None


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place in a network; empty addresses for host and none."""

    container_id: str
    endpoint_id: str
    network: str
    network_id: str
    container_name: str = ""
    link: str = ""
    ip: str = ""
    prefix: int = 0
    gateway: str = ""
    mac: str = ""
    ports: tuple[PortBinding, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh endpoint: its record, and the namespace to put the container into (None: the host's).

    The descriptor belongs to the network room, which closes it at release: duplicate it to keep it.
    """

    record: EndpointRecord
    namespace_fd: int | None

    @property
    def ip(self) -> str:
        return self.record.ip

    @property
    def prefix(self) -> int:
        return self.record.prefix

    @property
    def gateway(self) -> str:
        return self.record.gateway

    @property
    def mac(self) -> str:
        return self.record.mac

    @property
    def ports(self) -> tuple[PortBinding, ...]:
        return self.record.ports


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network: Docker's three defaults now; their ids stay the same for the life of the data root."""

    network_id: str
    name: str
    driver: str
    created_ns: int
    subnet: str = ""
    gateway: str = ""
    bridge_name: str = ""
    mtu: int = 0
    icc: bool = True
    ip_masq: bool = True
    default_bind_address: str = ""

    @property
    def interface(self) -> ipaddress.IPv4Interface:
        """The bridge's own address with its prefix."""
        return ipaddress.IPv4Interface(f"{self.gateway}/{self.subnet.partition('/')[2]}")
