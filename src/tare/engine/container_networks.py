"""Which networks a container is to be in, from create's options. What is wrong or not supported is refused here."""

from __future__ import annotations

import ipaddress
import re

from tare.engine.check import network_kind
from tare.engine.engine import Engine
from tare.engine.network_link import DEFAULT_NETWORKS, LINK_NAME, first_network
from tare.engine.options import ContainerConfig, EndpointOptions, HostOptions, NetworkingOptions
from tare.engine.records import EndpointState
from tare.errors import InvalidArgument, Unsupported
from tare.network.bridge import check_link_name
from tare.network.rates import parse_rate
from tare.network.records import HOST, NONE, EndpointRequest

SHARED_TEXT = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)
_PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
_HOST = "cannot connect container to host network - container must be created in host network mode"

_TWO_MACS = (
    "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty"
)
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")


def wanted_endpoints(
    engine: Engine, config: ContainerConfig, host: HostOptions, networking: NetworkingOptions
) -> tuple[EndpointState, ...]:
    """A new container's endpoints, the network mode's first. Raises InvalidArgument, Unsupported."""
    given = {canonical(engine, name): options for name, options in (networking.endpoints_config or {}).items()}
    if network_kind(host.network_mode) == "container":
        if set(given) - {host.network_mode}:
            raise InvalidArgument(SHARED_TEXT)
        return ()
    names = sorted(given)
    if host.network_mode not in ("", "default") or not names:
        first = canonical(engine, first_network(host.network_mode))
        names = [first, *(name for name in names if name != first)]
    if len(names) > 1 and HOST in names:
        raise InvalidArgument(_HOST)
    if len(names) > 1 and NONE in names:
        raise InvalidArgument(_PRIVATE)
    mac = (given.get(names[0]) or EndpointOptions()).mac_address
    if config.mac_address and mac and config.mac_address.lower() != mac.lower():
        raise InvalidArgument(_TWO_MACS)
    found = []
    for name in names:
        try:
            found.append(wanted_endpoint(engine, name, given.get(name)))
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid config for network {name}: {error}") from error
    return tuple(found)


def wanted_endpoint(engine: Engine, name: str, wish: EndpointOptions | None) -> EndpointState:
    """One endpoint. Raises InvalidArgument, Unsupported with Docker's texts."""
    wish = wish or EndpointOptions()
    _check(name, wish)
    asked = wish.ipam_config
    if asked is not None:
        engine.network.check_addresses(name, EndpointRequest(ip=asked.ipv4_address, ip6=asked.ipv6_address))
    engine.network.check_rate(parse_rate(wish.driver_opts or {}))
    return EndpointState(network=name, aliases=tuple(wish.aliases or ()), wish=wish)


def canonical(engine: Engine, ref: str) -> str:
    """The name of a network that may be given by its id; one that isn't there keeps what it was called."""
    if ref in ("default", *DEFAULT_NETWORKS):
        return "bridge" if ref == "default" else ref
    records = engine.network.networks()
    return next((record.name for record in records if ref in (record.name, record.network_id)), ref)


def check_multiple(container_endpoints: tuple[EndpointState, ...], network: str) -> None:
    """Raises if a container's networks don't allow one more."""
    names = {state.network for state in container_endpoints}
    if HOST in names:
        raise InvalidArgument(SHARED_TEXT)
    if network == HOST:
        raise InvalidArgument(_HOST)
    if NONE in names or (network == NONE and names):
        raise InvalidArgument(_PRIVATE)


def _check(name: str, wish: EndpointOptions) -> None:
    wanted = wish.ipam_config
    own = name not in DEFAULT_NETWORKS
    if wish.mac_address and not _MAC.fullmatch(wish.mac_address):
        raise InvalidArgument(f"invalid MAC address {wish.mac_address}")
    if wanted is not None:
        _check_link_locals(wanted.link_local_ips or ())
        if wanted.ipv4_address:
            if not own:
                raise InvalidArgument("user specified IP address is supported on user defined networks only")
            try:
                ipaddress.IPv4Address(wanted.ipv4_address)
            except ValueError as error:
                raise InvalidArgument(f"invalid IPv4 address: {wanted.ipv4_address}") from error
        if wanted.ipv6_address:
            if not own:
                raise InvalidArgument("user specified IP address is supported on user defined networks only")
            try:
                ipaddress.IPv6Address(wanted.ipv6_address)
            except ValueError as error:
                raise InvalidArgument(f"invalid IPv6 address: {wanted.ipv6_address}") from error
    if (wish.aliases or wish.links) and not own:
        raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
    for option in wish.driver_opts or {}:
        if not option.startswith("com.docker.network."):
            continue  # nobody's driver knows it: kept and shown, as Docker does
        if option == LINK_NAME:
            check_link_name((wish.driver_opts or {})[option])
            continue
        raise Unsupported(f"endpoint option {option} is not supported by Tare yet")


def _check_link_locals(addresses: tuple[str, ...]) -> None:
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise InvalidArgument(f"invalid link-local IP address: {text}") from error
        if address.version == 6:
            raise Unsupported(f"IPv6 link-local addresses are made by the kernel: {text}")
        if not address.is_link_local:
            raise InvalidArgument(f"invalid link-local IP address: {text}")
