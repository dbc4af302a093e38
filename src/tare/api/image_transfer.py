"""Images as archives: save and load."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from tare.api.call import JSON_TYPE, Call
from tare.api.json_lines import error_line, line
from tare.api.json_text import parse_json
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine.image_transfer import LayerProgress, Loaded, Platform, load_images, save_images
from tare.errors import InvalidArgument

TAR_TYPE = {"Content-Type": "application/x-tar"}


async def get(call: Call) -> Response:
    """GET /images/{name}/get."""
    return Response(200, TAR_TYPE, await save_images(call.engine, [call.path["name"]], platforms(call)))


async def get_all(call: Call) -> Response:
    """GET /images/get?names=…"""
    return Response(200, TAR_TYPE, await save_images(call.engine, call.repeated.get("names", []), platforms(call)))


async def load(call: Call) -> Response:
    """POST /images/load: what goes wrong is told in the stream, as Docker does."""
    told = load_images(call.engine, aiter(call.request.body), platforms(call))
    return Response(200, JSON_TYPE, load_messages(told, quiet=call.flag("quiet")), reads_body=True)


def platforms(call: Call) -> list[Platform]:
    """The repeated `platform` argument: JSON objects, as API 1.48 has them. Raises InvalidArgument."""
    made = []
    for text in call.repeated.get("platform", ()):
        if not text:
            continue
        found = parse_json(text.encode())
        if not isinstance(found, dict) or not all(isinstance(found.get(key, ""), str) for key in _PLATFORM_KEYS):
            raise InvalidArgument(f"invalid platform: {text[:100]}")
        if not found.get("os") or not found.get("architecture"):
            raise InvalidArgument(f"invalid platform: both os and architecture must be given: {text[:100]}")
        made.append(Platform(**{key: found.get(key, "") for key in _PLATFORM_KEYS}))
    return made


_PLATFORM_KEYS = ("os", "architecture", "variant")


async def load_messages(told: AsyncGenerator[LayerProgress | Loaded, None], *, quiet: bool) -> AsyncIterator[bytes]:
    """What a load tells, as Docker's lines of JSON."""
    try:
        async for item in told:
            if isinstance(item, LayerProgress):
                if not quiet:
                    yield line(_progress(item))
                continue
            for text in _loaded(item):
                yield line({"stream": text + "\n"})
    except Exception as error:
        yield error_line(error, "load")
    finally:
        await told.aclose()


def _progress(item: LayerProgress) -> dict[str, Any]:
    member = item.member.removeprefix("blobs/sha256/")
    return {
        "status": "Loading layer",
        "progressDetail": {"current": item.done_bytes, "total": item.size_bytes},
        "id": member.partition("/")[0][:12],
    }


def _loaded(item: Loaded) -> list[str]:
    lines = []
    for reference in item.references:
        name = reference.familiar
        if name in item.taken_from:
            lines.append(
                f"The image {name} already exists, renaming the old one with ID {item.taken_from[name]} to empty string"
            )
        lines.append(f"Loaded image: {name}")
    return lines or [f"Loaded image ID: {item.image.id}"]


ROUTES = (
    Route("GET", "/images/get", "ImageGetAll", get_all),
    Route("GET", "/images/{name}/get", "ImageGet", get),
    Route("POST", "/images/load", "ImageLoad", load),
)
