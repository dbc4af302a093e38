"""The networks there are: list and inspect."""

from __future__ import annotations

from tare.engine.engine import Engine
from tare.engine.network_link import endpoint_state
from tare.engine.network_options import AddressPoolOptions
from tare.engine.records import EndpointState, NetworkDetail
from tare.errors import InvalidArgument, NotFound
from tare.network.records import NetworkRecord
from tare.values.filters import Filters, check_filters, flag, match_labels
from tare.values.pattern import matcher

ACCEPTED_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


def _detail(engine: Engine, record: NetworkRecord) -> NetworkDetail:
    inside: dict[str, tuple[str, EndpointState]] = {}
    for endpoint in engine.network.endpoints():
        container = engine.containers.get(endpoint.container_id)
        if endpoint.network_id == record.network_id and container is not None:
            inside[container.id] = (container.name, endpoint_state(endpoint))
    pools = tuple(
        AddressPoolOptions(
            subnet=asked.subnet,
            ip_range=asked.ip_range,
            gateway=asked.gateway,
            auxiliary_addresses=asked.aux or None,
        )
        for asked in (record.asked, record.asked6)
        if asked is not None
    )
    return NetworkDetail(
        id=record.network_id,
        name=record.name,
        driver=record.driver,
        created_ns=record.created_ns,
        subnet=record.subnet,
        gateway=record.gateway,
        ipv4=record.ipv4,
        ipv6=record.ipv6,
        subnet6=record.subnet6,
        gateway6=record.gateway6,
        internal=record.internal,
        attachable=record.attachable,
        pools=pools,
        address_options=record.address_options,
        options=_default_options(record) if record.is_default else record.options,
        labels=record.labels,
        containers=inside,
        config_only=record.config_only,
        config_from=record.config_from,
    )


def _default_options(record: NetworkRecord) -> dict[str, str]:
    if record.driver != "bridge":
        return {}
    own = {"tare.network.egress": record.egress} if record.egress else {}
    return own | {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": str(record.icc).lower(),
        "com.docker.network.bridge.enable_ip_masquerade": str(record.ip_masq).lower(),
        "com.docker.network.bridge.host_binding_ipv4": record.default_bind_address,
        "com.docker.network.bridge.name": record.bridge_name,
        "com.docker.network.driver.mtu": str(record.mtu),
    }


async def list_networks(engine: Engine, filters: Filters) -> list[NetworkDetail]:
    """All networks that pass the filters. Raises InvalidArgument for an unknown filter."""
    check_filters(filters, ACCEPTED_FILTERS)
    for kind in filters.get("type", ()):
        if kind not in ("builtin", "custom"):
            raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
    dangling = flag(filters, "dangling", False) if "dangling" in filters else None
    used = {endpoint.network_id for endpoint in engine.network.endpoints()}
    by_name, by_id = matcher(filters.get("name", ())), matcher(filters.get("id", ()))
    found = []
    for record in engine.network.networks():
        matches = (
            ("driver" not in filters or record.driver in filters["driver"])
            and ("id" not in filters or by_id(record.network_id))
            and ("name" not in filters or by_name(record.name))
            and ("scope" not in filters or "local" in filters["scope"])
            and ("type" not in filters or ("builtin" if record.is_default else "custom") in filters["type"])
            and match_labels(filters, record.labels)
            and (dangling is None or dangling == (not record.is_default and record.network_id not in used))
        )
        if matches:
            found.append(_detail(engine, record))
    return found


async def inspect_network(engine: Engine, ref: str) -> NetworkDetail:
    """A network by name, id or unique beginning of its id. Raises NotFound with Docker's text."""
    return _detail(engine, find_network(engine, ref))


def find_network(engine: Engine, ref: str) -> NetworkRecord:
    """The network that a user means. Raises NotFound, or InvalidArgument if several are meant, with Docker's texts."""
    records = engine.network.networks()
    matches = [record for record in records if record.network_id == ref]
    matches = matches or [record for record in records if record.name == ref]
    matches = matches or [record for record in records if ref and record.network_id.startswith(ref)]
    if len(matches) > 1:
        raise InvalidArgument(f"network {ref} is ambiguous ({len(matches)} matches found based on ID prefix)")
    if not matches:
        raise NotFound(f"network {ref} not found")
    return matches[0]
