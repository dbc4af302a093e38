"""The network room's records: settings, what is asked for, what was made, what is stored. Pure."""

from __future__ import annotations

import ipaddress

import msgspec

from tare.network.rates import Rate

BRIDGE, HOST, NONE = "bridge", "host", "none"
MACVLAN, IPVLAN = "macvlan", "ipvlan"
STACKED = (MACVLAN, IPVLAN)
"""Drivers whose containers' links stand on a link of the host, without a bridge."""
NAT, NAT_UNPROTECTED, ROUTED, ISOLATED = "nat", "nat-unprotected", "routed", "isolated"
GATEWAY_MODES = (NAT, NAT_UNPROTECTED, ROUTED, ISOLATED)


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine does its networks; what concerns one network concerns the default one.

    subnet: the bridge's address with its prefix (as `--bip`), or a subnet whose first address the bridge then takes;
    None: the first of `address_pools` that is free here. table: the nftables table (family inet), this engine's alone.
    host_resolv_conf: where the resolvers stand that names are looked up with. publish_allow: subnets whose addresses
    may reach published ports (empty: all); the host itself always may. allow_direct_routing: other machines reach
    published ports at the containers' own addresses, too.
    """

    enabled: bool = True
    bridge_name: str = "tare0"
    subnet: str | None = None
    ipv6: bool = False
    subnet6: str = ""
    address_pools: tuple[str, ...] = ()
    mtu: int = 1500
    icc: bool = True
    guard: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    firewall: bool = True
    default_bind_address: str = "0.0.0.0"
    table: str = "tare"
    warm_namespaces: int = 3
    host_resolv_conf: str = "/etc/resolv.conf"
    publish_allow: tuple[str, ...] = ()
    allow_direct_routing: bool = False


class PortRequest(msgspec.Struct, frozen=True):
    """A container port to publish. host_port 0: any free one; a larger host_port_last: the first free in the range.

    both: on all IPv6 addresses of the host, too.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_last: int = 0
    both: bool = False


class PortBinding(msgspec.Struct, frozen=True):
    """A container port as it is published; host_port 0: at the container's own address (a routed network's).

    inside: the address at which an uplink's packets for host_ip arrive ("": at host_ip itself).
    """

    container_port: int
    protocol: str
    host_ip: str
    host_port: int
    inside: str = ""


class EndpointRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a container wants of one network.

    mode: the network's name or id. ports: of a container on several networks they go to the one that has its default
    route. names: what other containers of a network of the user's own find it by. links: names and what they
    are to be called in this container. nameservers: whom to ask instead of the host's resolvers. priority: the highest
    of all its endpoints gets the default route. egress: what it may send to (egress.py). inside: what its link is to be
    called there.
    """

    mode: str = "bridge"
    container_name: str = ""
    ports: tuple[PortRequest, ...] = ()
    mac: str | None = None
    ip: str = ""
    ip6: str = ""
    names: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    nameservers: tuple[str, ...] = ()
    link_locals: tuple[str, ...] = ()
    priority: int = 0
    egress: str = ""
    rate: Rate | None = None
    inside: str = ""


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place in a network; empty addresses for host and none.

    guarded: its bridge port lets only frames with its own MAC and addresses pass. stale_names: its egress policy has
    changed, and the packet filter may still know ways that names opened under the old one. routed_by_parent: nobody is
    its gateway: ipvlan's modes of layer 3, in which the host's own routes lead out.
    """

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
    inside: str = "eth0"
    names: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    nameservers: tuple[str, ...] = ()
    link_locals: tuple[str, ...] = ()
    priority: int = 0
    guarded: bool = False
    ip6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    egress: str = ""
    stale_names: bool = False
    rate: Rate | None = None
    driver: str = BRIDGE
    routed_by_parent: bool = False

    @property
    def is_stacked(self) -> bool:
        """Whether its link is in the container alone: `link` is only what its addresses are leased to."""
        return self.driver in STACKED


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A container's place in its networks: its endpoints, and the namespace to put it into (None: the host's).

    record: the first network's that was asked for; more: the others'. The descriptor belongs to the network room, which
    closes it at release: duplicate it to keep it.
    """

    record: EndpointRecord
    namespace_fd: int | None
    more: tuple[EndpointRecord, ...] = ()

    @property
    def records(self) -> tuple[EndpointRecord, ...]:
        return (self.record, *self.more)

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


class AddressOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A network's addresses as its user asked for them; "" where nothing was said."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux: dict[str, str] = {}


class NetworkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A network of the user's own. options: the driver's, by Docker's names.

    config_only: nothing but a configuration, which others take over as their config_from (its name).
    """

    name: str
    driver: str = "bridge"
    addresses: tuple[AddressOptions, ...] = ()
    address_driver: str = "default"
    address_options: dict[str, str] | None = None
    internal: bool = False
    attachable: bool = False
    ipv4: bool = True
    ipv6: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    config_only: bool = False
    config_from: str = ""


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network. The ids of Docker's three defaults stay the same for the life of the data root.

    asked: how its user wanted its addresses (None: a default network, or nothing was said). ip_range: the part of the
    subnet that containers' addresses come from. guard: containers can't use others' MACs and addresses.
    egress: what its containers may send to (egress.py). parent, mode, flag: macvlan's and ipvlan's.
    gateway_modes: of IPv4 and of IPv6. inhibits_ipv4: the bridge itself gets no IPv4 address. trusted_links: links of
    the host from which published ports are reached at the containers' own addresses, too.
    unsettled: being made or removed; after a crash it is taken away.
    """

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
    ip_range: str = ""
    reserved: tuple[str, ...] = ()
    internal: bool = False
    attachable: bool = False
    inside_prefix: str = "eth"
    guard: bool = True
    egress: str = ""
    ipv6: bool = False
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    asked6: AddressOptions | None = None
    asked: AddressOptions | None = None
    address_options: dict[str, str] | None = None
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    unsettled: bool = False
    parent: str = ""
    mode: str = ""
    flag: str = ""
    gateway_modes: tuple[str, str] = (NAT, NAT)
    inhibits_ipv4: bool = False
    trusted_links: tuple[str, ...] = ()
    config_only: bool = False
    config_from: str = ""
    ipv4: bool = True

    def gateway_mode(self, version: int) -> str:
        """How packets of an address family go in and out: nat, nat-unprotected, routed or isolated."""
        return self.gateway_modes[version == 6]

    @property
    def host_interfaces(self) -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
        """The addresses that the host has on the bridge."""
        return tuple(
            interface
            for interface in self.interfaces
            if self.gateway_mode(interface.version) != ISOLATED and not (interface.version == 4 and self.inhibits_ipv4)
        )

    @property
    def is_stacked(self) -> bool:
        """Whether its containers' links stand on a link of the host, without a bridge."""
        return self.driver in STACKED

    @property
    def has_links(self) -> bool:
        """Whether its containers have links of their own in it."""
        return self.driver == BRIDGE or self.is_stacked

    @property
    def parent_link(self) -> str:
        """The host's link that its containers' links stand on; one that leads nowhere, if none was named."""
        return (self.parent or f"dm-{self.network_id[:12]}") if self.is_stacked else ""

    @property
    def leads_nowhere(self) -> bool:
        """Whether there is no way out of it, and so no default route in it."""
        return self.internal or (self.is_stacked and not self.parent)

    @property
    def interface(self) -> ipaddress.IPv4Interface:
        """The bridge's own IPv4 address with its prefix, on a network that has IPv4."""
        return ipaddress.IPv4Interface(f"{self.gateway}/{self.subnet.partition('/')[2]}")

    @property
    def interface6(self) -> ipaddress.IPv6Interface | None:
        """The bridge's IPv6 address with its prefix; None on a network without IPv6."""
        return ipaddress.IPv6Interface(f"{self.gateway6}/{self.subnet6.partition('/')[2]}") if self.subnet6 else None

    @property
    def interfaces(self) -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
        """All of the bridge's own addresses."""
        second = self.interface6
        first = (self.interface,) if self.subnet else ()
        return first if second is None else (*first, second)

    @property
    def is_default(self) -> bool:
        """Whether it is one of the networks that every engine has."""
        return self.name in (BRIDGE, HOST, NONE)

    @property
    def names_containers(self) -> bool:
        """Whether its containers find each other by name."""
        return not self.is_default
