"""From what a user asks of a network to its record: names, addresses, the bridge driver's options. Pure.

It must never drop an option that changes what a network does: what isn't honoured is refused by name.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from tare.errors import Conflict, Forbidden, InvalidArgument, NotFound, Unavailable, Unsupported
from tare.network import config_networks, ipam, stacked_networks
from tare.network.address_checks import check_addresses
from tare.network.bridge import check_link_name, check_name
from tare.network.egress import parse_policy
from tare.network.ip_families import Ip, Subnet
from tare.network.records import (
    BRIDGE,
    GATEWAY_MODES,
    HOST,
    ISOLATED,
    NAT,
    NONE,
    STACKED,
    AddressOptions,
    NetworkRecord,
    NetworkRequest,
    NetworkSettings,
)
from tare.values.ids import new_id

MTU = "com.docker.network.driver.mtu"
PREFIX = "com.docker.network.container_iface_prefix"
GUARD = "tare.network.guard"
EGRESS = "tare.network.egress"
_BRIDGE_OPTION = "com.docker.network.bridge."
_GATEWAY_MODES = (_BRIDGE_OPTION + "gateway_mode_ipv4", _BRIDGE_OPTION + "gateway_mode_ipv6")
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def make_record(
    request: NetworkRequest,
    settings: NetworkSettings,
    networks: Sequence[NetworkRecord],
    reached: Callable[[], Iterable[ipaddress.IPv4Network]],
) -> NetworkRecord:
    """The record of a new bridge network. networks: all there are; reached: subnets that this host has routes to.

    Raises InvalidArgument, Forbidden, Conflict, NotFound, Unsupported, ResourceExhausted with Docker's texts.
    """
    _check_request(request, networks)
    if not (request.ipv4 or request.ipv6):
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    check_addresses(request.addresses, versions=[*([4] if request.ipv4 else []), *([6] if request.ipv6 else [])])
    if request.config_only:
        return config_networks.make_record(request, *_sorted_addresses(request))
    if request.config_from:
        request = config_networks.apply(request, networks)
    network_id = new_id()
    asked, asked6 = _sorted_addresses(request)
    record = NetworkRecord(
        network_id=network_id,
        name=request.name,
        driver=request.driver,
        created_ns=time.time_ns(),
        bridge_name=f"br-{network_id[:12]}" if request.driver == BRIDGE else "",
        mtu=settings.mtu if request.driver == BRIDGE else 0,
        ip_masq=True,
        default_bind_address=settings.default_bind_address,
        internal=request.internal,
        attachable=request.attachable,
        asked=asked,
        asked6=asked6,
        ipv4=request.ipv4,
        ipv6=request.ipv6,
        address_options=request.address_options,
        options=request.options,
        labels=request.labels,
        config_from=request.config_from,
    )
    record = _with_options(record)
    if record.is_stacked:
        record = stacked_networks.with_options(record)
        stacked_networks.check_shared(record, networks)
    else:
        _check_bridge(record, networks)
    record = _with_ipv6(record, [ipaddress.IPv6Network(other.subnet6) for other in networks if other.subnet6])
    subnets = [ipaddress.IPv4Network(other.subnet) for other in networks if other.subnet]
    if not record.ipv4:
        return record
    if asked is None:
        pools = settings.address_pools or ipam.DEFAULT_POOLS
        interface = ipam.choose_subnet(pools, [*subnets, *reached()])
        return msgspec.structs.replace(record, subnet=str(interface.network), gateway=str(interface.ip))
    subnet, gateway, pool, reserved = _chosen(asked, subnets)
    return msgspec.structs.replace(
        record, subnet=subnet, gateway=gateway, ip_range=pool, reserved=(*record.reserved, *reserved)
    )


def _sorted_addresses(request: NetworkRequest) -> tuple[AddressOptions | None, AddressOptions | None]:
    """What was asked of IPv4 and of IPv6 addresses. A network without IPv6 only shows the latter, as with Docker."""
    found: dict[int, AddressOptions] = {}
    for asked in request.addresses:
        version = _subnet(asked.subnet).version
        if version in found:
            raise Forbidden(f"{request.driver} driver doesn't support multiple subnets")
        found[version] = asked
    return found.get(4) if request.ipv4 else None, found.get(6)


def _with_ipv6(record: NetworkRecord, taken: Collection[ipaddress.IPv6Network]) -> NetworkRecord:
    if not record.ipv6:
        return record
    if record.asked6 is None:
        own = ipam.own_subnet6(record.network_id)
        return msgspec.structs.replace(record, subnet6=str(own.network), gateway6=str(own.ip))
    subnet, gateway, pool, reserved = _chosen(record.asked6, taken)
    return msgspec.structs.replace(record, subnet6=subnet, gateway6=gateway, ip_range6=pool, reserved=reserved)


def _check_request(request: NetworkRequest, networks: Collection[NetworkRecord]) -> None:
    name, driver = request.name, request.driver
    if name in (BRIDGE, HOST, NONE, "default"):
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if not name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if "/" in name or "\0" in name or len(name) > 255:
        raise InvalidArgument(f"invalid network name: {name[:300]!r}")
    if any(other.name == name for other in networks):
        raise Conflict(f"network with name {name} already exists")
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise Unavailable("This node is not a swarm manager, and overlay networks need one.")
    if driver not in (BRIDGE, *STACKED):
        raise NotFound(f'plugin "{driver}" not found')
    if request.address_driver != "default":
        raise NotFound(f'plugin "{request.address_driver}" not found')


def _check_bridge(record: NetworkRecord, networks: Collection[NetworkRecord]) -> None:
    for other in networks:
        if other.bridge_name == record.bridge_name:
            raise Forbidden(
                f"cannot create network {record.network_id} ({record.bridge_name}): conflicts with network "
                f"{other.network_id} ({other.bridge_name}): networks have same bridge name"
            )


def _with_options(record: NetworkRecord) -> NetworkRecord:
    changes: dict[str, object] = {}
    for name, value in record.options.items():
        if name == MTU:
            changes["mtu"] = _number(name, value)
        elif name == PREFIX:
            changes["inside_prefix"] = _inside_prefix(value)
        elif record.is_stacked:
            continue  # the others are the driver's own, or nobody's
        elif name == EGRESS:
            parse_policy(value)
            changes["egress"] = value
        elif name == GUARD:
            changes["guard"] = _truth(name, value)
        elif name == _BRIDGE_OPTION + "name":
            check_name(value)
            changes["bridge_name"] = value
        elif name == _BRIDGE_OPTION + "enable_icc":
            changes["icc"] = _truth(name, value)
        elif name == _BRIDGE_OPTION + "enable_ip_masquerade":
            changes["ip_masq"] = _truth(name, value)
        elif name == _BRIDGE_OPTION + "host_binding_ipv4":
            changes["default_bind_address"] = _host_address(name, value)
        elif name == _BRIDGE_OPTION + "inhibit_ipv4":
            changes["inhibits_ipv4"] = _truth(name, value)
        elif name == _BRIDGE_OPTION + "trusted_host_interfaces":
            changes["trusted_links"] = _link_names(value)
        elif name in _GATEWAY_MODES:
            _check_gateway_mode(name, value, record)
        elif name.startswith("com.docker.network."):
            raise Unsupported(f"network option {name}={value} is not supported by Tare yet")
    modes = tuple(record.options.get(name) or NAT for name in _GATEWAY_MODES)
    return msgspec.structs.replace(record, gateway_modes=modes, **changes)


def _check_gateway_mode(name: str, value: str, record: NetworkRecord) -> None:
    if value not in ("", *GATEWAY_MODES):
        raise InvalidArgument(f"unknown gateway mode {value}: {name} is one of {', '.join(GATEWAY_MODES)}")
    if value == ISOLATED and not record.internal:
        raise InvalidArgument(f"gateway mode 'isolated' can only be used for an internal network ({name})")


def _link_names(value: str) -> tuple[str, ...]:
    """Names of the host's links; they may come later."""
    names = tuple(dict.fromkeys(name for name in value.split(":") if name))
    for name in names:
        check_link_name(name)
    return names


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise InvalidArgument(
            f'failed to parse {name} value: {value} (strconv.Atoi: parsing "{value}": invalid syntax)'
        )
    if not 68 <= int(value) <= 65535:  # RFC 791; a bridge takes no more
        raise InvalidArgument(f"invalid {name} value: {value} is not between 68 and 65535")
    return int(value)


def _truth(name: str, value: str) -> bool:
    if value not in (*_TRUE, *_FALSE):
        raise InvalidArgument(
            f'failed to parse {name} value: {value} (strconv.ParseBool: parsing "{value}": invalid syntax)'
        )
    return value in _TRUE


def _host_address(name: str, value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError as error:
        raise InvalidArgument(f"failed to parse {name} value: {value} (nil ip)") from error


def _inside_prefix(value: str) -> str:
    if not value or not value.isascii() or not value.isalnum() or len(value) > 11 or value == "lo":
        raise InvalidArgument(f"invalid container interface prefix: {value!r}")
    return value


def _chosen(
    asked: AddressOptions, taken: Collection[ipaddress.IPv4Network] | Collection[ipaddress.IPv6Network]
) -> tuple[str, str, str, tuple[str, ...]]:
    """Subnet, gateway, the part that containers' addresses come from ("": all of it), and what is reserved."""
    subnet = _subnet(asked.subnet)
    if any(subnet.overlaps(other) for other in taken):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    pool = _subnet(asked.ip_range) if asked.ip_range else subnet
    if pool.version != subnet.version or not pool.subnet_of(subnet):  # type: ignore[arg-type]
        raise InvalidArgument(f"invalid ip-range {asked.ip_range}: it is not a part of {asked.subnet}")
    reserved = _reserved(asked, subnet)
    if asked.gateway:
        gateway = _fit(asked.gateway.partition("/")[0], subnet, "failed to allocate gateway", "")
    else:
        unfit = {str(subnet.network_address), str(_last_unfit(subnet)), *reserved}
        candidates = (pool.network_address + position for position in range(min(pool.num_addresses, len(unfit) + 1)))
        found = next((address for address in candidates if str(address) not in unfit), None)
        if found is None:
            raise InvalidArgument(f"no address for a gateway in {pool}")
        gateway = found
    if str(gateway) in reserved:
        name = next(name for name, text in asked.aux.items() if ipaddress.ip_address(text) == gateway)
        raise Forbidden(f"{_AUXILIARY} ({name}:{gateway}): Address already in use")
    return str(subnet), str(gateway), str(pool) if pool != subnet else "", reserved


def _last_unfit(subnet: Subnet) -> Ip | None:
    """The broadcast address, which IPv6 hasn't."""
    return subnet.broadcast_address if subnet.version == 4 else None


def _subnet(text: str) -> Subnet:
    try:
        address, slash, _ = text.partition("/")
        parsed = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"Invalid subnet {text} : invalid CIDR address: {text}") from error
    if not slash or not address:
        raise InvalidArgument(f"Invalid subnet {text} : invalid CIDR address: {text}")
    least, most = (8, 30) if parsed.version == 4 else (16, 126)
    if parsed.prefixlen > most or parsed.prefixlen < least:
        raise InvalidArgument(f"Invalid subnet {text} : its prefix must be between {least} and {most}")
    return parsed


_AUXILIARY = "failed to allocate secondary ip address"


def _reserved(asked: AddressOptions, subnet: Subnet) -> tuple[str, ...]:
    """The auxiliary addresses, each once."""
    found: list[str] = []
    for name, text in asked.aux.items():
        address = str(_fit(text, subnet, _AUXILIARY, f"{name}:"))
        if address in found:
            raise Forbidden(f"{_AUXILIARY} ({name}:{address}): Address already in use")
        found.append(address)
    return tuple(found)


def _fit(text: str, subnet: Subnet, failure: str, name: str) -> Ip:
    """An address in the subnet (check_addresses) that isn't the subnet's own."""
    address = ipaddress.ip_address(text)
    if address in (subnet.network_address, _last_unfit(subnet)):
        raise Forbidden(f"{failure} ({name}{text}): Address already in use")
    return address
