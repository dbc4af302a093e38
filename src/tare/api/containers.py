"""Containers as things: create, list, inspect, changes, export, top, update, rename, remove, prune, commit."""

from __future__ import annotations

from tare.api import wire
from tare.api.call import Call, empty_response, json_response
from tare.api.container_bodies import parse_commit, parse_create
from tare.api.container_json import inspect_json, summary_json
from tare.api.messages import Response
from tare.api.pages import Page
from tare.api.pruned import pruned_response
from tare.api.router import Route
from tare.engine.changes import container_changes
from tare.engine.commit import commit_container
from tare.engine.create import create_container
from tare.engine.export import export_container
from tare.engine.inspect import inspect_container
from tare.engine.listing import list_containers
from tare.engine.options import CommitOptions, UpdateOptions
from tare.engine.prune import prune_containers
from tare.engine.remove import remove_container
from tare.engine.rename import rename_container
from tare.engine.top import container_top
from tare.engine.update import update_container
from tare.errors import InvalidArgument, NotFound
from tare.values.timestamps import now_ns

_KINDS = {"C": 0, "A": 1, "D": 2}


_OLD_MAC = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."


async def create(call: Call) -> Response:
    """POST /containers/create."""
    document = await call.json()
    if document is None and call.request.headers.get("content-length", "0") == "0":
        raise InvalidArgument("EOF")
    config, host, networking = parse_create(document)
    names = sorted(networking.endpoints_config or {})
    if call.version < (1, 44) and len(names) > 1:
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {', '.join(names)}")
    created = await create_container(
        call.engine, call.text("name") or None, config, host, networking, call.text("platform") or None
    )
    warnings = list(created.warnings)
    if config.mac_address and call.version >= (1, 44):
        warnings.append(_OLD_MAC)
    return json_response({"Id": created.id, "Warnings": warnings}, 201)


async def list_(call: Call) -> Response:
    """GET /containers/json."""
    page = Page(call)
    limit = None if page.wanted else call.number("limit")
    found = await list_containers(
        call.engine,
        all=call.flag("all"),
        limit=limit if limit is not None and limit > 0 else None,
        size=call.flag("size"),
        filters=call.filters(),
        cut=lambda containers: page.cut(containers, lambda one: (-one.created_ns, one.id)),
    )
    now = now_ns()
    return json_response([summary_json(summary, call.version, now) for summary in found], headers=page.headers)


async def inspect(call: Call) -> Response:
    """GET /containers/{id}/json."""
    detail = await inspect_container(call.engine, call.path["id"], size=call.flag("size"))
    return json_response(inspect_json(detail, call.version))


async def changes(call: Call) -> Response:
    """GET /containers/{id}/changes."""
    found = await container_changes(call.engine, call.path["id"])
    return json_response([{"Path": change.path, "Kind": _KINDS[change.kind]} for change in found])


async def export(call: Call) -> Response:
    """GET /containers/{id}/export: a tar stream."""
    stream = await export_container(call.engine, call.path["id"])
    return Response(200, {"Content-Type": "application/octet-stream"}, stream)


async def top(call: Call) -> Response:
    """GET /containers/{id}/top."""
    table = await container_top(call.engine, call.path["id"], call.text("ps_args") or "-ef")
    return json_response({"Processes": [list(row) for row in table.processes], "Titles": list(table.titles)})


async def update(call: Call) -> Response:
    """POST /containers/{id}/update: changes just what the body gives."""
    document = await call.json()
    options = wire.decode(UpdateOptions, document)
    warnings = await update_container(call.engine, call.path["id"], options, wire.given_fields(UpdateOptions, document))
    return json_response({"Warnings": list(warnings) or None})


async def rename(call: Call) -> Response:
    """POST /containers/{id}/rename."""
    await rename_container(call.engine, call.path["id"], call.text("name"))
    return empty_response()


async def remove_link(call: Call) -> Response:
    """DELETE /containers/{id}/{alias}: the form that only links have."""
    if not call.flag("link"):
        raise NotFound("page not found")
    name = f"{call.path['id']}/{call.path['alias']}"
    await remove_container(call.engine, name, force=False, volumes=False, link=True, keep=False)
    return empty_response()


async def remove(call: Call) -> Response:
    """DELETE /containers/{id}."""
    await remove_container(
        call.engine,
        call.path["id"],
        force=call.flag("force"),
        volumes=call.flag("v"),
        link=call.flag("link"),
        keep=call.flag("trash", True),  # Tare's own
    )
    return empty_response()


async def prune(call: Call) -> Response:
    """POST /containers/prune."""
    report = await prune_containers(call.engine, call.filters(), keep=call.flag("trash", True))
    return pruned_response("ContainersDeleted", list(report.removed) or None, report)


async def commit(call: Call) -> Response:
    """POST /commit."""
    options = CommitOptions(
        repository=call.text("repo"),
        tag=call.text("tag"),
        comment=call.text("comment"),
        author=call.text("author"),
        pause=call.flag("pause", True),
        changes=call.lines("changes"),
        config=parse_commit(await call.json()),
    )
    return json_response({"Id": await commit_container(call.engine, call.text("container"), options)}, 201)


ROUTES = (
    Route("POST", "/containers/create", "ContainerCreate", create, finishes=True),
    Route("GET", "/containers/json", "ContainerList", list_),
    Route("GET", "/containers/{id}/json", "ContainerInspect", inspect),
    Route("GET", "/containers/{id}/changes", "ContainerChanges", changes),
    Route("GET", "/containers/{id}/export", "ContainerExport", export),
    Route("GET", "/containers/{id}/top", "ContainerTop", top),
    Route("POST", "/containers/{id}/update", "ContainerUpdate", update, finishes=True),
    Route("POST", "/containers/{id}/rename", "ContainerRename", rename, finishes=True),
    Route("DELETE", "/containers/{id}", "ContainerDelete", remove, finishes=True),
    Route("DELETE", "/containers/{id}/{alias}", "ContainerDelete", remove_link, finishes=True),
    Route("POST", "/containers/prune", "ContainerPrune", prune, finishes=True),
    Route("POST", "/commit", "ImageCommit", commit, finishes=True),
)
