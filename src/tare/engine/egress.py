"""What containers may send to: checked at create, changed live by update, and what is denied told as events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tare.engine.check import network_kind
from tare.errors import InvalidArgument, NotFound
from tare.network.egress import parse_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tare.engine.engine import Engine
    from tare.engine.options import HostOptions
    from tare.engine.records import EndpointState
    from tare.kernel.netlink_log import LoggedPacket

DENIED = "egress_denied"
"""The event's action; its attributes destination, port and protocol say what was tried."""


def check_egress(host: HostOptions) -> None:
    """Raises InvalidArgument for a policy that isn't understood, or that a container without a network can't have."""
    policy = parse_policy(host.egress)
    if policy is not None and network_kind(host.network_mode) in ("host", "container"):
        raise InvalidArgument(f"conflicting options: an egress policy and the network mode {host.network_mode}")


def check_networks(engine: Engine, host: HostOptions, endpoints: Sequence[EndpointState]) -> None:
    """Raises InvalidArgument, Unsupported for a policy that one of a container's networks can't hold it to."""
    for state in endpoints:
        engine.network.check_egress(state.network, host.egress)


def tell_denied(engine: Engine) -> None:
    """From now on denied packets are events of the containers that sent them."""

    def tell(container_id: str, packet: LoggedPacket) -> None:
        try:
            container = engine.containers.find(container_id)
        except NotFound:
            return
        where = {"destination": packet.destination, "protocol": packet.protocol, "port": str(packet.port or "")}
        engine.events.container(container, DENIED, **where)

    engine.network.on_denied(tell)
