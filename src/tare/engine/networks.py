"""The networks there are: Docker's three defaults."""

from __future__ import annotations

from tare.engine.engine import Engine
from tare.engine.network_link import endpoint_state
from tare.engine.records import EndpointState, NetworkDetail
from tare.errors import InvalidArgument, NotFound
from tare.network.records import NetworkRecord
from tare.values.filters import Filters, check_filters, flag, match_labels

ACCEPTED_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


def _detail(engine: Engine, record: NetworkRecord) -> NetworkDetail:
    inside: dict[str, tuple[str, EndpointState]] = {}
    for endpoint in engine.network.endpoints():
        container = engine.containers.get(endpoint.container_id)
        if endpoint.network_id == record.network_id and container is not None:
            inside[container.id] = (container.name, endpoint_state(endpoint))
    options = {}
    if record.driver == "bridge":
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": str(record.icc).lower(),
            "com.docker.network.bridge.enable_ip_masquerade": str(record.ip_masq).lower(),
            "com.docker.network.bridge.host_binding_ipv4": record.default_bind_address,
            "com.docker.network.bridge.name": record.bridge_name,
            "com.docker.network.driver.mtu": str(record.mtu),
        }
    return NetworkDetail(
        id=record.network_id,
        name=record.name,
        driver=record.driver,
        created_ns=record.created_ns,
        subnet=record.subnet,
        gateway=record.gateway,
        options=options,
        containers=inside,
    )


async def list_networks(engine: Engine, filters: Filters) -> list[NetworkDetail]:
    """All networks that pass the filters. Raises InvalidArgument for an unknown filter."""
    check_filters(filters, ACCEPTED_FILTERS)
    for kind in filters.get("type", ()):
        if kind not in ("builtin", "custom"):
            raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
    dangling = flag(filters, "dangling", False)
    found = []
    for record in engine.network.networks():
        matches = (
            ("driver" not in filters or record.driver in filters["driver"])
            and ("id" not in filters or any(record.network_id.startswith(wanted) for wanted in filters["id"]))
            and ("name" not in filters or any(wanted in record.name for wanted in filters["name"]))
            and ("scope" not in filters or "local" in filters["scope"])
            and ("type" not in filters or "builtin" in filters["type"])
            and match_labels(filters, {})
            and not dangling
        )
        if matches:
            found.append(_detail(engine, record))
    return found


async def inspect_network(engine: Engine, ref: str) -> NetworkDetail:
    """A network by name, id or unique beginning of its id. Raises NotFound with Docker's text."""
    records = engine.network.networks()
    matches = [record for record in records if ref in (record.name, record.network_id)]
    matches = matches or [record for record in records if ref and record.network_id.startswith(ref)]
    if len(matches) != 1:
        raise NotFound(f"network {ref} not found")
    return _detail(engine, matches[0])
