"""Containers that change engines, which Docker's API doesn't have: departures at one, arrivals at the other."""

from __future__ import annotations

from typing import Any

import msgspec

from tare.api.call import Call, empty_response, json_response
from tare.api.image_transfer import TAR_TYPE
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine import arrival, departure
from tare.engine.arrival import Arriving
from tare.engine.departure import Leaving
from tare.engine.portable import as_copy, parse_portable, user_networks


async def describe(call: Call) -> Response:
    """GET /containers/{id}/departure?volumes=&copy=: what would travel; copy: as a container of that name."""
    leaving = await departure.describe(call.engine, call.path["id"], with_volumes=call.flag("volumes", True))
    return json_response(_leaving(leaving, call.text("copy")))


async def depart(call: Call) -> Response:
    """POST /containers/{id}/departure?how=stop|pause&volumes=: holds it still; it can't be started until it stays."""
    leaving = await departure.depart(
        call.engine, call.path["id"], how=call.text("how"), with_volumes=call.flag("volumes", True)
    )
    return json_response(_leaving(leaving, ""))


async def part(call: Call) -> Response:
    """GET /containers/{id}/departure/part?name=: one of its streams, a tar."""
    return Response(200, TAR_TYPE, await departure.part(call.engine, call.path["id"], call.text("name")))


async def departed(call: Call) -> Response:
    """POST /containers/{id}/departure/finish: it is whole elsewhere; here it goes into the trash."""
    await departure.departed(call.engine, call.path["id"])
    return empty_response()


async def stay(call: Call) -> Response:
    """DELETE /containers/{id}/departure: it is as it was before."""
    container = await departure.stay(call.engine, call.path["id"])
    return json_response({"Id": container.id, "Status": container.state.status})


async def begin(call: Call) -> Response:
    """POST /tare/arrivals?check=: a description, as GET …/departure has it; answers which parts are to be sent.

    check: only whether it could arrive.
    """
    moved = parse_portable(msgspec.json.encode(await call.json()))
    if call.flag("check"):
        if call.engine.containers.get(moved.id) is None:
            arrival.check_arrival(call.engine, moved)
        return empty_response()
    return json_response(_arriving(await arrival.begin(call.engine, moved)), 201)


async def look(call: Call) -> Response:
    """GET /tare/arrivals/{id}: how far it has come."""
    return json_response(_arriving(arrival.find(call.engine, call.path["id"])))


async def receive(call: Call) -> Response:
    """PUT /tare/arrivals/{id}/part?name=: one of its streams; counts once it is whole."""
    await arrival.receive_part(call.engine, call.path["id"], call.text("name"), aiter(call.request.body))
    return empty_response()


async def finish(call: Call) -> Response:
    """POST /tare/arrivals/{id}/finish: all is here, so it becomes a container."""
    container = await arrival.finish(call.engine, call.path["id"])
    return json_response({"Id": container.id, "Name": container.name}, 201)


async def start(call: Call) -> Response:
    """POST /tare/arrivals/{id}/start: the source is gone; if it ran there, it runs here."""
    container, running = await arrival.start_arrived(call.engine, call.path["id"])
    return json_response({"Id": container.id, "Name": container.name, "Running": running})


async def give_up(call: Call) -> Response:
    """DELETE /tare/arrivals/{id}: forgets what has come of it."""
    arrival.give_up(call.engine, call.path["id"])
    return empty_response()


def _leaving(leaving: Leaving, copy: str) -> dict[str, Any]:
    moved = as_copy(leaving.moved, copy) if copy else leaving.moved
    return {
        "Id": moved.id,
        "Name": moved.name,
        "Image": moved.image_id,
        "Ran": moved.ran,
        "Networks": user_networks(moved),
        "Volumes": [volume.name for volume in moved.volumes],
        "Parts": list(moved.parts),
        "Obstacles": [{"Kind": one.kind, "About": one.about} for one in leaving.obstacles],
        "Description": moved,
    }


def _arriving(arriving: Arriving) -> dict[str, Any]:
    moved = arriving.moved
    return {
        "Id": moved.id,
        "Name": moved.name,
        "Ran": moved.ran,
        "Wanted": list(arriving.wanted),
        "Whole": arriving.whole,
    }


ROUTES = (
    Route("GET", "/containers/{id}/departure", "TareDepartureDescribe", describe),
    Route("POST", "/containers/{id}/departure", "TareDepartureBegin", depart, finishes=True),
    Route("GET", "/containers/{id}/departure/part", "TareDeparturePart", part),
    Route("POST", "/containers/{id}/departure/finish", "TareDepartureFinish", departed, finishes=True),
    Route("DELETE", "/containers/{id}/departure", "TareDepartureStay", stay, finishes=True),
    Route("POST", "/tare/arrivals", "TareArrivalBegin", begin, finishes=True),
    Route("GET", "/tare/arrivals/{id}", "TareArrivalLook", look),
    Route("PUT", "/tare/arrivals/{id}/part", "TareArrivalPart", receive),
    Route("POST", "/tare/arrivals/{id}/finish", "TareArrivalFinish", finish, finishes=True),
    Route("POST", "/tare/arrivals/{id}/start", "TareArrivalStart", start, finishes=True),
    Route("DELETE", "/tare/arrivals/{id}", "TareArrivalGiveUp", give_up, finishes=True),
)
