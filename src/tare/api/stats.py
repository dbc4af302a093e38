"""What a container uses: once, or a stream of samples."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tare.api.call import JSON_TYPE, Call, json_lines, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.api.stats_json import stats_json
from tare.engine.stats import StatsSample, container_stats
from tare.errors import InvalidArgument, NotFound


async def _shaped(samples: AsyncIterator[StatsSample], version: tuple[int, int]) -> AsyncIterator[object]:
    try:
        async for sample in samples:
            yield stats_json(sample, version)
    finally:
        aclose = getattr(samples, "aclose", None)
        if aclose is not None:
            await aclose()


async def stats(call: Call) -> Response:
    """GET /containers/{id}/stats."""
    stream, one_shot = call.flag("stream", True), call.flag("one-shot")
    if stream and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    ref = call.path["id"]
    shaped = _shaped(await container_stats(call.engine, ref, stream=stream, one_shot=one_shot), call.version)
    if stream:
        return Response(200, JSON_TYPE, json_lines(shaped))
    async for sample in shaped:
        return json_response(sample)
    raise NotFound(f"No such container: {ref}")


ROUTES = (Route("GET", "/containers/{id}/stats", "ContainerStats", stats),)
