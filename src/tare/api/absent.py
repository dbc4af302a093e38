"""What this engine has none of yet (plugins, build caches): truthful empty answers.

Clients ask for these on their way (`docker inspect NAME`, `docker system prune`), so that a 501 would break what works.
Making any of them is refused as not implemented; nothing here pretends to have done something.
"""

from __future__ import annotations

from tare.api.call import Call, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.errors import NotFound

_PRUNE_FILTERS = ("label", "label!", "until", "all")


async def prune_build_cache(call: Call) -> Response:
    """POST /build/prune."""
    return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})


async def plugins(call: Call) -> Response:
    """GET /plugins."""
    return json_response([])


async def plugin(call: Call) -> Response:
    """GET /plugins/{name}/json."""
    raise NotFound(f'plugin "{call.path["name"]}" not found')


ROUTES = (
    Route("POST", "/build/prune", "BuildPrune", prune_build_cache),
    Route("GET", "/plugins", "PluginList", plugins),
    Route("GET", "/plugins/{name}/json", "PluginInspect", plugin),
)
