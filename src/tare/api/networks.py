"""Networks: list and inspect."""

from __future__ import annotations

from tare.api.call import Call, json_response
from tare.api.messages import Response
from tare.api.network_json import network_json
from tare.api.router import Route
from tare.engine.networks import inspect_network, list_networks


async def list_(call: Call) -> Response:
    """GET /networks."""
    found = await list_networks(call.engine, call.filters())
    return json_response([network_json(network, call.version, listed=True) for network in found])


async def inspect(call: Call) -> Response:
    """GET /networks/{id}."""
    return json_response(network_json(await inspect_network(call.engine, call.path["id"]), call.version))


ROUTES = (
    Route("GET", "/networks", "NetworkList", list_),
    Route("GET", "/networks/{id}", "NetworkInspect", inspect),
)
