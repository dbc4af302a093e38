"""After a restart of the engine: a live container's record and the network room agree again.

a network of the record's, the room has it      addresses and ports as the room says
a network of the record's, the room hasn't it   a disconnect was cut short: it is finished
another network in the room                     a connect was cut short: it is taken back
ports                                           as the record asks for (an update may have been cut short)
"""

from __future__ import annotations

import contextlib
import logging

from tare.engine import etc_files, network_link, publish
from tare.engine.check import network_kind
from tare.engine.engine import Engine, Live
from tare.engine.network_link import DEFAULT_NETWORKS
from tare.errors import Conflict, InvalidArgument, TareError

_log = logging.getLogger(__name__)


async def take_up(engine: Engine, container_id: str, live: Live) -> None:
    """Takes up a live container's networks; what can't be is logged, and the container runs on."""
    container = engine.containers.find(container_id)
    if network_kind(container.host.network_mode) == "container":
        return
    try:
        await engine.network.resume(container_id, live.pid)
        wanted = {state.network for state in container.endpoints} or {
            network_link.first_network(container.host.network_mode)
        }
        for record in engine.network.endpoints_of(container_id):
            if record.network not in wanted and record.network not in DEFAULT_NETWORKS[1:]:
                await engine.network.disconnect(container_id, record.network_id)
        records = engine.network.endpoints_of(container_id)
        changed = network_link.with_records(container, records)
        if changed != container:
            gone = {state.ip_address for state in container.endpoints} - {record.ip for record in records}
            for state in container.endpoints:
                if state.ip_address and state.ip_address in gone:
                    etc_files.leave(container, state)
            container = engine.containers.save(changed)
        with contextlib.suppress(
            Conflict, InvalidArgument
        ):  # no network of its leads to ports: nor did it at its start
            publish.settle(engine, container)
    except (OSError, TareError) as error:  # it ends just now, or a port is taken
        _log.warning("container %s: its network is not quite as it should be: %s", container_id[:12], error)
