"""Networks: create, list, inspect, remove, prune, connect and disconnect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tare.api.call import Call, empty_response, json_response
from tare.api.messages import Response
from tare.api.network_json import network_json
from tare.api.pages import Page
from tare.api.router import Route
from tare.engine.network_connect import connect_container, disconnect_container
from tare.engine.network_create import create_network, prune_networks, remove_network, update_network
from tare.engine.network_options import ConnectOptions, DisconnectOptions, NetworkOptions, NetworkUpdateOptions
from tare.engine.network_upkeep import list_rules, repair_networks
from tare.engine.networks import inspect_network, list_networks
from tare.errors import InvalidArgument, NotFound

_TRUTHS = frozenset("1 t T TRUE true True 0 f F FALSE false False".split())

if TYPE_CHECKING:
    from tare.engine.network_upkeep import ListedTable


async def list_(call: Call) -> Response:
    """GET /networks."""
    page = Page(call)
    found = page.cut(await list_networks(call.engine, call.filters()), lambda network: (network.created_ns, network.id))
    return json_response([network_json(network, call.version, listed=True) for network in found], headers=page.headers)


async def inspect(call: Call) -> Response:
    """GET /networks/{id}. With `scope` only of networks that have it; `verbose` would tell of Swarm's services."""
    verbose, scope = call.text("verbose"), call.text("scope")
    if verbose and verbose not in _TRUTHS:
        text = f'invalid value for verbose: {verbose}: strconv.ParseBool: parsing "{verbose}": invalid syntax'
        raise InvalidArgument(text)
    made = network_json(await inspect_network(call.engine, call.path["id"]), call.version)
    if scope not in ("", made["Scope"]):
        raise NotFound(f"network {call.path['id']} not found")
    return json_response(made)


async def create(call: Call) -> Response:
    """POST /networks/create."""
    network_id = await create_network(call.engine, await call.record(NetworkOptions))
    return json_response({"Id": network_id, "Warning": ""}, 201)


async def update(call: Call) -> Response:
    """POST /tare/networks/{id}/update, which Docker doesn't have: a network's egress policy, from now on."""
    await update_network(call.engine, call.path["id"], await call.record(NetworkUpdateOptions))
    return empty_response(200)


async def remove(call: Call) -> Response:
    """DELETE /networks/{id}."""
    await remove_network(call.engine, call.path["id"])
    return empty_response()


async def prune(call: Call) -> Response:
    """POST /networks/prune."""
    removed = await prune_networks(call.engine, call.filters())
    return json_response({"NetworksDeleted": list(removed) or None})


async def connect(call: Call) -> Response:
    """POST /networks/{id}/connect."""
    options = await call.record(ConnectOptions)
    await connect_container(call.engine, call.path["id"], options.container, options.endpoint_config)
    return empty_response(200)


async def disconnect(call: Call) -> Response:
    """POST /networks/{id}/disconnect."""
    options = await call.record(DisconnectOptions)
    await disconnect_container(call.engine, call.path["id"], options.container, force=options.force)
    return empty_response(200)


async def rules(call: Call) -> Response:
    """GET /tare/networks/rules, which Docker doesn't have: the engine's packet filter in words."""
    return json_response([_table_json(table) for table in await list_rules(call.engine)])


def _table_json(table: ListedTable) -> dict[str, Any]:
    chains = [
        {
            "Name": chain.name,
            "Hook": chain.hook,
            "Priority": chain.priority,
            "Rules": [{"Rule": text, "Packets": packets} for text, packets in chain.rules],
        }
        for chain in table.chains
    ]
    sets = [{"Name": item.name, "Elements": list(item.elements)} for item in table.sets]
    return {"Family": table.family, "Name": table.name, "Whole": table.whole, "Chains": chains, "Sets": sets}


async def repair(call: Call) -> Response:
    """POST /tare/networks/repair, which Docker doesn't have: what somebody broke is put right, and named."""
    return json_response({"Repaired": await repair_networks(call.engine)})


ROUTES = (
    Route("GET", "/tare/networks/rules", "TareNetworkRules", rules),
    Route("POST", "/tare/networks/repair", "TareNetworkRepair", repair, finishes=True),
    Route("POST", "/tare/networks/{id}/update", "TareNetworkUpdate", update, finishes=True),
    Route("GET", "/networks", "NetworkList", list_),
    Route("GET", "/networks/{id}", "NetworkInspect", inspect),
    Route("POST", "/networks/create", "NetworkCreate", create, finishes=True),
    Route("DELETE", "/networks/{id}", "NetworkDelete", remove, finishes=True),
    Route("POST", "/networks/prune", "NetworkPrune", prune, finishes=True),
    Route("POST", "/networks/{id}/connect", "NetworkConnect", connect, finishes=True),
    Route("POST", "/networks/{id}/disconnect", "NetworkDisconnect", disconnect, finishes=True),
)
