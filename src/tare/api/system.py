"""The engine as a whole: _ping, version, info, events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from tare.api.call import Call, json_lines, json_response
from tare.api.messages import Response
from tare.api.router import MAX_VERSION_TEXT, MIN_VERSION_TEXT, Route
from tare.api.system_json import info_json, version_json
from tare.engine.doctor import diagnose
from tare.engine.engine import in_thread
from tare.engine.events import check_event_filters
from tare.engine.records import Event
from tare.engine.system import engine_info, engine_version
from tare.values.timestamps import parse_instant

_PING_HEADERS = {
    "Builder-Version": "1",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
    "Content-Type": "text/plain; charset=utf-8",
}


async def ping(call: Call) -> Response:
    """GET and HEAD /_ping: what clients negotiate the version with."""
    return Response(200, _PING_HEADERS, b"OK" if call.request.method == "GET" else b"")


async def version(call: Call) -> Response:
    """GET /version."""
    return json_response(version_json(engine_version(call.engine), MAX_VERSION_TEXT, MIN_VERSION_TEXT))


async def info(call: Call) -> Response:
    """GET /info."""
    return json_response(info_json(await engine_info(call.engine), call.version))


def event_json(event: Event) -> dict[str, Any]:
    """One event. The fields status, id and from are older than the rest.

    Docker dropped them in 1.52. Here they stay: Compose 1.29 and docker-py's users read them, and take the engine's
    newest version.
    """
    made: dict[str, Any] = {}
    if event.type in ("container", "image"):
        made["status"] = event.action
        made["id"] = event.actor_id
        if event.type == "container" and "image" in event.attributes:
            made["from"] = event.attributes["image"]
    return made | {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": dict(event.attributes)},
        "scope": event.scope,
        "time": event.time_ns // 10**9,
        "timeNano": event.time_ns,
    }


def _instant(call: Call, name: str) -> int | None:
    text = call.text(name)
    return parse_instant(text) if text else None


async def events(call: Call) -> Response:
    """GET /events: the past from `since`, then what comes, to `until`. The headers go out at once."""
    filters = call.filters()
    check_event_filters(filters)
    since_ns, until_ns = _instant(call, "since"), _instant(call, "until")
    found = call.engine.events.follow(since_ns=since_ns, until_ns=until_ns, filters=filters)

    async def shaped() -> AsyncIterator[object]:
        try:
            async for event in found:
                yield event_json(event)
        finally:
            aclose = getattr(found, "aclose", None)
            if aclose is not None:
                await aclose()

    return Response(200, {"Content-Type": _events_type(call)}, json_lines(shaped()))


def _events_type(call: Call) -> str:
    """Newer Docker names the lines' format where the client asks for it."""
    accepted = call.request.headers.get("accept", "")
    for kind in ("application/jsonl", "application/x-ndjson"):
        if call.version >= (1, 52) and kind in accepted:
            return kind
    return "application/json"


async def doctor(call: Call) -> Response:
    """GET /tare/doctor, which Docker doesn't have: what this machine allows, what is missing, and what that costs."""
    found = await in_thread(diagnose, str(call.engine.settings.data_root))
    return json_response(
        [
            {"Name": one.name, "Level": one.level, "Found": one.found, "Costs": one.costs, "Remedy": one.remedy}
            for one in found
        ]
    )


ROUTES = (
    Route("GET", "/_ping", "SystemPing", ping),
    Route("HEAD", "/_ping", "SystemPingHead", ping),
    Route("GET", "/version", "SystemVersion", version),
    Route("GET", "/info", "SystemInfo", info),
    Route("GET", "/events", "SystemEvents", events),
    Route("GET", "/tare/doctor", "TareDoctor", doctor),
)
