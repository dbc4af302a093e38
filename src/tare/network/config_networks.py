"""Networks that are only a configuration, and those that take theirs from one (--config-only, --config-from). Pure.

It must never let a container into one: there is nothing of it in the kernel, and its addresses are nobody's yet.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import msgspec

from tare.errors import Forbidden, NotFound
from tare.network.records import AddressOptions, NetworkRecord, NetworkRequest
from tare.values.ids import new_id


def make_record(request: NetworkRequest, asked: AddressOptions | None, asked6: AddressOptions | None) -> NetworkRecord:
    """The record of a configuration. Raises Forbidden with Docker's texts."""
    if request.config_from:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if request.internal or request.attachable:
        raise Forbidden(
            "configuration network can only contain network specific fields. "
            "Network operator fields like [ ingress | internal | attachable | scope ] are not supported."
        )
    return NetworkRecord(
        network_id=new_id(),
        name=request.name,
        driver="null",
        created_ns=time.time_ns(),
        asked=asked,
        asked6=asked6,
        ipv4=request.ipv4,
        ipv6=request.ipv6,
        address_options=request.address_options,
        options=request.options,
        labels=request.labels,
        config_only=True,
    )


def apply(request: NetworkRequest, networks: Collection[NetworkRecord]) -> NetworkRequest:
    """The request with the configuration that it names. Raises NotFound, Forbidden with Docker's texts."""
    found = next((record for record in networks if record.config_only and record.name == request.config_from), None)
    if found is None:
        raise NotFound(f'configuration network "{request.config_from}" does not exist')
    own = (request.addresses, request.options, request.labels, request.ipv6, request.address_options)
    if any(own) or request.address_driver != "default":
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    return msgspec.structs.replace(
        request,
        addresses=tuple(asked for asked in (found.asked, found.asked6) if asked is not None),
        ipv4=found.ipv4,
        ipv6=found.ipv6,
        address_options=found.address_options,
        options=found.options,
        labels=found.labels,
    )


def check_unused(record: NetworkRecord, networks: Collection[NetworkRecord]) -> None:
    """Raises Forbidden if a network has its configuration from this one."""
    if any(other.config_from == record.name for other in networks):
        raise Forbidden(f'error while removing network: configuration network "{record.name}" is in use')
