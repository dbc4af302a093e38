"""Images: import, list, inspect, history, tag, remove, prune."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from tare.api.call import JSON_TYPE, Call, empty_response, json_response
from tare.api.image_json import history_json, inspect_json, removed_json, summary_json
from tare.api.image_manifests import manifests_json
from tare.api.image_transfer import platforms
from tare.api.json_lines import error_line, line
from tare.api.messages import Response
from tare.api.pages import Page
from tare.api.pruned import pruned_response
from tare.api.registries import pull_image
from tare.api.router import Route
from tare.engine import image_verbs
from tare.engine.image_manifests import image_manifests
from tare.engine.image_verbs import ImportOptions
from tare.engine.import_url import Downloaded, import_from_url
from tare.values.timestamps import parse_instant


async def create(call: Call) -> Response:
    """POST /images/create: pulls (`fromImage`), or imports the body (`fromSrc=-`) or what is at a URL."""
    if call.text("fromImage"):
        return await pull_image(call)
    options = ImportOptions(
        repository=call.text("repo"),
        tag=call.text("tag"),
        changes=call.lines("changes"),
        message=call.text("message"),
        platform=call.text("platform") or None,
        created_ns=parse_instant(call.text("created")) if call.text("created") else None,  # Tare's own
    )
    source = call.text("fromSrc")
    if source != "-":
        return Response(200, JSON_TYPE, _imported(source, await import_from_url(call.engine, source, options)))
    image_id = await image_verbs.import_image(call.engine, aiter(call.request.body), options)
    return Response(200, JSON_TYPE, line({"status": image_id}))


async def _imported(url: str, told: AsyncGenerator[Downloaded | str, None]) -> AsyncIterator[bytes]:
    yield line({"status": f"Downloading from {url}"})
    try:
        async for item in told:
            if isinstance(item, str):
                yield line({"status": item})
                continue
            detail = {"current": item.done_bytes, "total": item.size_bytes}
            yield line({"status": "Importing", "progressDetail": detail, "id": "import"})
    except Exception as error:
        yield error_line(error, "import")
    finally:
        await told.aclose()


async def list_(call: Call) -> Response:
    """GET /images/json."""
    page = Page(call)
    filters = dict(call.filters())
    if call.text("filter"):  # until 1.40 a reference pattern of its own
        filters["reference"] = (call.text("filter"),)
    found = await image_verbs.list_images(
        call.engine,
        all=call.flag("all"),
        filters=filters,
        shared_size=call.flag("shared-size"),
        digests=call.flag("digests"),
    )
    found = page.cut(found, lambda summary: (-summary.image.created_ns, summary.image.id))
    rows = [summary_json(summary, call.version) for summary in found]
    if call.flag("manifests") and call.version >= (1, 47):
        for row, summary in zip(rows, found, strict=True):
            row["Manifests"] = manifests_json(image_manifests(call.engine, summary.image))
    return json_response(rows, headers=page.headers)


async def inspect(call: Call) -> Response:
    """GET /images/{name}/json."""
    wanted = platforms(call)[:1]
    image = await image_verbs.inspect_image(call.engine, call.path["name"], wanted[0] if wanted else None)
    # Compose 1 asks for the newest version and then looks for a field that went in 1.45.
    is_compose_1 = call.request.headers.get("user-agent", "").startswith("docker-compose/1.")
    made = inspect_json(image, call.version, container_config=is_compose_1)
    if call.flag("manifests") and call.version >= (1, 48) and not wanted:
        made["Manifests"] = manifests_json(image_manifests(call.engine, image))
    return json_response(made)


async def history(call: Call) -> Response:
    """GET /images/{name}/history."""
    wanted = platforms(call)[:1]
    found = await image_verbs.image_history(call.engine, call.path["name"], wanted[0] if wanted else None)
    return json_response([history_json(entry) for entry in found])


async def tag(call: Call) -> Response:
    """POST /images/{name}/tag."""
    await image_verbs.tag_image(call.engine, call.path["name"], call.text("repo"), call.text("tag"))
    return empty_response(201)


async def remove(call: Call) -> Response:
    """DELETE /images/{name}."""
    removed = await image_verbs.remove_image(
        call.engine,
        call.path["name"],
        force=call.flag("force"),
        noprune=call.flag("noprune"),
        keep=call.flag("trash", True),
    )
    return json_response([removed_json(line) for line in removed])


async def prune(call: Call) -> Response:
    """POST /images/prune."""
    removed, report = await image_verbs.prune_images(call.engine, call.filters(), keep=call.flag("trash", True))
    return pruned_response("ImagesDeleted", [removed_json(line) for line in removed] or None, report)


ROUTES = (
    Route("POST", "/images/create", "ImageCreate", create, finishes=lambda call: not call.text("fromImage")),
    Route("GET", "/images/json", "ImageList", list_),
    Route("GET", "/images/{name}/json", "ImageInspect", inspect),
    Route("GET", "/images/{name}/history", "ImageHistory", history),
    Route("POST", "/images/{name}/tag", "ImageTag", tag, finishes=True),
    Route("DELETE", "/images/{name}", "ImageDelete", remove, finishes=True),
    Route("POST", "/images/prune", "ImagePrune", prune, finishes=True),
)
