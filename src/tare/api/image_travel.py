"""Images straight from engine to engine, which Docker's API doesn't have: only the layers that are missing travel."""

from __future__ import annotations

from typing import Any

from tare.api.call import JSON_TYPE, Call, json_response
from tare.api.image_transfer import TAR_TYPE, load_messages
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine.export import export_image
from tare.engine.image_travel import missing_layers, offer_images, receive_images, send_images
from tare.errors import InvalidArgument

MAX_NAMES = 10_000


async def offer(call: Call) -> Response:
    """GET /tare/images/offer?names=…: which images and layers belong to the named ones."""
    found = await offer_images(call.engine, _checked(call.repeated.get("names", []), "names"))
    return json_response(
        {
            "Images": [
                {"Id": one.image.id, "Names": [reference.familiar for reference in one.references]}
                for one in found.chosen
            ],
            "Layers": [
                {"Digest": layer.digest, "DiffId": layer.diff_id, "Size": layer.size_bytes} for layer in found.layers
            ],
        }
    )


async def missing(call: Call) -> Response:
    """POST /tare/images/missing {"Layers": [{"Digest", "DiffId"} …]}: the digests of those that aren't here."""
    document = await call.json()
    found = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(found, list) or len(found) > MAX_NAMES:
        raise InvalidArgument("Layers must be a list")
    wanted: list[tuple[str, str]] = []
    for one in found:
        match one:
            case {"Digest": str() as digest, "DiffId": str() as diff_id}:
                wanted.append((digest, diff_id))
            case _:
                raise InvalidArgument("each of Layers must have a Digest and a DiffId")
    return json_response({"Layers": await missing_layers(call.engine, wanted)})


async def send(call: Call) -> Response:
    """POST /tare/images/send {"Names": […], "Without": [digest …]}: an archive without those layers."""
    document = await call.json()
    names = _checked(_strings(document, "Names"), "Names")
    return Response(200, TAR_TYPE, await send_images(call.engine, names, _strings(document, "Without")))


async def receive(call: Call) -> Response:
    """POST /tare/images/receive?names=new: takes such an archive in. What goes wrong is told in the stream."""
    only_new = call.text("names", "all")
    if only_new not in ("all", "new"):
        raise InvalidArgument(f"names must be all or new, not {only_new[:32]!r}")
    told = receive_images(call.engine, aiter(call.request.body), only_new_names=only_new == "new")
    return Response(200, JSON_TYPE, load_messages(told, quiet=call.flag("quiet")), reads_body=True)


async def export(call: Call) -> Response:
    """GET /tare/images/{name}/export: the root file system of an image, or of a version of it (NAME@ID), as a tar."""
    return Response(200, TAR_TYPE, await export_image(call.engine, call.path["name"]))


def _strings(document: Any, key: str) -> list[str]:
    found = document.get(key, []) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found) or len(found) > MAX_NAMES:
        raise InvalidArgument(f"{key} must be a list of strings")
    return found


def _checked(names: list[str], key: str) -> list[str]:
    if not names or not all(names):
        raise InvalidArgument(f"{key} must be given")
    return names


ROUTES = (
    Route("GET", "/tare/images/offer", "TareImagesOffer", offer),
    Route("POST", "/tare/images/missing", "TareImagesMissing", missing),
    Route("POST", "/tare/images/send", "TareImagesSend", send),
    Route("POST", "/tare/images/receive", "TareImagesReceive", receive),
    Route("GET", "/tare/images/{name}/export", "TareImageExport", export),
)
