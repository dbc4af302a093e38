"""How fast a container is on a network: changed at once if it runs, remembered if it doesn't."""

from __future__ import annotations

import msgspec

from tare.engine import network_link
from tare.engine.engine import Engine
from tare.engine.options import EndpointOptions
from tare.errors import Forbidden
from tare.network.rates import OPTIONS, parse_rate


async def set_speed(engine: Engine, network: str, container_id: str, wish: EndpointOptions | None) -> EndpointOptions:
    """Takes rate, delay … from the wish (none: no limit any more); returns what was there before.

    The caller holds the container's lock. Raises InvalidArgument, Unsupported, Forbidden (it isn't on the network).
    """
    given = (wish.driver_opts if wish is not None else None) or {}
    rate = parse_rate(given)
    engine.network.check_rate(rate)
    container = engine.containers.find(container_id)
    state = next((state for state in container.endpoints if state.network == network), None)
    if state is None:
        raise Forbidden(f"container {container.id} is not connected to network {network}")
    old = state.wish or EndpointOptions()
    kept = {name: value for name, value in (old.driver_opts or {}).items() if name not in OPTIONS}
    options = kept | {name: value for name, value in given.items() if name in OPTIONS}
    changed = msgspec.structs.replace(old, driver_opts=options or None)
    states = [
        msgspec.structs.replace(other, wish=changed) if other is state else other for other in container.endpoints
    ]
    if container_id in engine.live and state.network_id:
        await engine.network.set_rate(container_id, state.network_id, rate)
        container = engine.containers.find(container_id)
    engine.containers.save(network_link.with_states(container, states), durable=True)
    return old
