"""network create, rm, prune."""

from __future__ import annotations

from tare.engine.engine import Engine
from tare.engine.network_options import NetworkOptions, NetworkUpdateOptions
from tare.engine.networks import find_network
from tare.errors import Forbidden, Unavailable, Unsupported
from tare.network.records import AddressOptions, NetworkRecord, NetworkRequest
from tare.values.filters import Filters, check_filters, match_labels, match_no_labels
from tare.values.timestamps import parse_instant

PRUNE_FILTERS = ("label", "label!", "until")


async def create_network(engine: Engine, options: NetworkOptions) -> str:
    """Makes a network; returns its id.

    Raises InvalidArgument, Conflict (the name), Forbidden (its addresses), Unsupported, with Docker's texts.
    """
    record = await engine.network.create(_request(options))
    _tell(engine, record, "create")
    return record.network_id


def _request(options: NetworkOptions) -> NetworkRequest:
    _refuse_missing(options)
    ipam = options.ipam
    return NetworkRequest(
        name=options.name,
        driver=options.driver or "bridge",
        addresses=tuple(
            AddressOptions(
                subnet=pool.subnet,
                ip_range=pool.ip_range,
                gateway=pool.gateway,
                aux=pool.auxiliary_addresses or {},
            )
            for pool in (ipam and ipam.config) or ()
        ),
        address_driver=(ipam and ipam.driver) or "default",
        address_options=ipam.options if ipam else None,
        internal=options.internal,
        attachable=options.attachable,
        ipv4=options.enable_ipv4 is not False,
        ipv6=bool(options.enable_ipv6),
        options=options.options or {},
        labels=options.labels or {},
        config_only=options.config_only,
        config_from=options.config_from.network if options.config_from else "",
    )


def _refuse_missing(options: NetworkOptions) -> None:
    if options.scope == "swarm" or options.ingress:
        raise Unavailable("This node is not a swarm manager, and networks of a swarm need one.")
    if options.scope not in ("", "local"):
        raise Unsupported(f"network scope {options.scope} is not supported by Tare")


async def update_network(engine: Engine, ref: str, options: NetworkUpdateOptions) -> None:
    """Changes a network that may be in use. Docker has no such verb.

    Raises NotFound, InvalidArgument, Unsupported, Forbidden before anything changed.
    """
    record = find_network(engine, ref)
    if options.egress is not None:
        record = await engine.network.set_network_egress(record.network_id, options.egress)
        _tell(engine, record, "update")


async def remove_network(engine: Engine, ref: str) -> None:
    """Removes a network that no running container is connected to. Raises NotFound, Forbidden with Docker's texts."""
    record = find_network(engine, ref)
    await engine.network.remove(record.network_id)
    _tell(engine, record, "destroy")


async def prune_networks(engine: Engine, filters: Filters) -> tuple[str, ...]:
    """Removes the networks of users' own that no container, running or not, is connected to; returns their names."""
    check_filters(filters, PRUNE_FILTERS)
    until = [parse_instant(text) for text in filters.get("until", ())]
    used = {endpoint.network for container in engine.containers for endpoint in container.endpoints}
    removed = []
    for record in engine.network.networks():
        if (
            not (record.is_default or record.config_only)
            and record.name not in used
            and (not until or record.created_ns < min(until))
            and match_labels(filters, record.labels)
            and match_no_labels(filters, record.labels)
        ):
            try:
                await remove_network(engine, record.network_id)
            except Forbidden:
                continue  # a container was connected meanwhile
            removed.append(record.name)
    engine.events.publish("network", "prune", "", {"reclaimed": "0"})
    return tuple(removed)


def _tell(engine: Engine, record: NetworkRecord, action: str) -> None:
    engine.events.publish("network", action, record.network_id, {"name": record.name, "type": record.driver})
