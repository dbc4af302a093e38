"""Registries: pull, push, login, search, a look at what a registry has.

The verbs are imported when they are first asked for: an engine that is never told to pull doesn't carry them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from tare.api.call import JSON_TYPE, Call, json_response
from tare.api.image_transfer import platforms
from tare.api.json_lines import error_line, line
from tare.api.messages import Response
from tare.api.router import Route
from tare.errors import InvalidArgument
from tare.values.reference import parse_reference
from tare.values.units import format_bytes

if TYPE_CHECKING:
    from tare.engine.registry_verbs import Told

_BAR = 50


async def pull_image(call: Call) -> Response:
    """POST /images/create?fromImage=…: what goes wrong before the first message has a status of its own."""
    from tare.api.registry_credentials import header_credentials
    from tare.engine.pull import PullOptions, pull
    from tare.engine.registry_verbs import parse_platform

    name, tag = call.text("fromImage").rstrip(":"), call.text("tag")
    reference = parse_reference(name)
    if tag:
        text = f"{reference.domain}/{reference.path}"
        reference = parse_reference(f"{text}@{tag}" if ":" in tag else f"{text}:{tag}")
    options = PullOptions(
        reference=reference,
        all_tags=reference.tag is None and reference.digest is None,
        platform=parse_platform(call.text("platform")) if call.text("platform") else None,
        credentials=header_credentials(call.request.headers, reference.domain),
    )
    return await _told(pull(call.engine, options))


async def push_image(call: Call) -> Response:
    """POST /images/{name}/push."""
    from tare.api.registry_credentials import header_credentials
    from tare.engine.push import PushOptions, push

    reference = parse_reference(call.path["name"])
    if reference.tag is not None or reference.digest is not None:
        if call.text("tag"):
            raise InvalidArgument("invalid reference format")
    elif call.text("tag"):
        reference = parse_reference(f"{reference.domain}/{reference.path}:{call.text('tag')}")
    credentials = header_credentials(call.request.headers, reference.domain)
    wanted = platforms(call)
    return await _told(
        push(call.engine, PushOptions(reference=reference, credentials=credentials, platforms=tuple(wanted)))
    )


async def auth(call: Call) -> Response:
    """POST /auth."""
    from tare.api.registry_credentials import body_credentials
    from tare.engine import registry_verbs

    token = await registry_verbs.log_in(call.engine, body_credentials(await call.json()))
    return json_response({"IdentityToken": token, "Status": "Login Succeeded"})


async def search(call: Call) -> Response:
    """GET /images/search."""
    from tare.api.registry_credentials import header_credentials
    from tare.engine import registry_verbs

    term = call.text("term")
    credentials = header_credentials(call.request.headers, registry_verbs.split_term(term)[0])
    found = await registry_verbs.search(
        call.engine, term, limit=call.number("limit"), filters=call.filters(), credentials=credentials
    )
    return json_response(
        [
            {
                "star_count": one.star_count,
                "is_official": one.is_official,
                "name": one.name,
                "is_automated": one.is_automated,
                "description": one.description,
            }
            for one in found
        ]
    )


async def distribution(call: Call) -> Response:
    """GET /distribution/{name}/json."""
    from tare.api.registry_credentials import header_credentials
    from tare.engine import registry_verbs

    name = call.path["name"]
    credentials = header_credentials(call.request.headers, parse_reference(name).domain)
    found = await registry_verbs.inspect_distribution(call.engine, name, credentials)
    one = found.descriptor
    shown = [
        {"architecture": each.architecture, "os": each.os, **({"variant": each.variant} if each.variant else {})}
        for each in found.platforms
    ]
    return json_response(
        {"Descriptor": {"mediaType": one.media_type, "digest": one.digest, "size": one.size}, "Platforms": shown}
    )


async def tags(call: Call) -> Response:
    """GET /distribution/{name}/tags, which Docker doesn't have."""
    from tare.api.registry_credentials import header_credentials
    from tare.engine import registry_verbs

    name = call.path["name"]
    credentials = header_credentials(call.request.headers, parse_reference(name).domain)
    return json_response(await registry_verbs.list_tags(call.engine, name, credentials))


async def _told(told: AsyncGenerator[Told, None]) -> Response:
    try:
        first = await anext(told)
    except StopAsyncIteration:
        return Response(200, JSON_TYPE)
    return Response(200, JSON_TYPE, _lines(first, told))


async def _lines(first: Told, told: AsyncGenerator[Told, None]) -> AsyncIterator[bytes]:
    try:
        yield line(_message(first))
        async for item in told:
            yield line(_message(item))
    except Exception as error:
        yield error_line(error, "registry")
    finally:
        await told.aclose()


def _message(item: Told) -> dict[str, Any]:
    from tare.engine.registry_verbs import Sent

    if isinstance(item, Sent):
        return {"progressDetail": {}, "aux": {"Tag": item.tag, "Digest": item.digest, "Size": item.size}}
    made: dict[str, Any] = {"status": item.status}
    if item.layer:
        made["progressDetail"] = {}
        if item.current:
            made["progressDetail"] = {"current": item.current, "total": item.total}
            made["progress"] = progress_bar(item.current, item.total)
    if item.id:
        made["id"] = item.id
    return made


def progress_bar(current: int, total: int) -> str:
    """The text of a message's `progress`, which old clients print as it is."""
    if total <= 0:
        return f"{format_bytes(current, 4):>8}"
    filled = min(current * _BAR // total, _BAR)
    bar = "[" + "=" * filled + ">" + " " * (_BAR - filled) + "] "
    shown = f"{format_bytes(current, 4):>8}"
    return bar + (shown if current > total else f"{shown}/{format_bytes(total, 4)}")


ROUTES = (
    Route("POST", "/images/{name}/push", "ImagePush", push_image),
    Route("POST", "/auth", "SystemAuth", auth),
    Route("GET", "/images/search", "ImageSearch", search),
    Route("GET", "/distribution/{name}/json", "DistributionInspect", distribution),
    Route("GET", "/distribution/{name}/tags", "TareDistributionTags", tags),
)
