"""Images as versions, which Docker's API doesn't have: differences, the graph, where names were before."""

from __future__ import annotations

from typing import Any

from tare.api.call import Call, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine.checkout import checkout, fork
from tare.engine.compare import Difference, Facts, View, compare_views
from tare.engine.versions import Move, Version, log_versions, reflog, squash_versions, undo_move
from tare.errors import InvalidArgument
from tare.values.timestamps import format_instant, format_rfc3339

_KINDS = {"C": 0, "A": 1, "D": 2}


async def diff(call: Call) -> Response:
    """GET /tare/diff?from=&to=&patch=."""
    old, new = call.text("from"), call.text("to")
    if not old or not new:
        raise InvalidArgument("from and to must both be given")
    found = await compare_views(call.engine, old, new, patches=call.flag("patch"))
    changes = [_difference(one) for one in found.differences]
    return json_response({"From": _view(found.old), "To": _view(found.new), "Changes": changes})


async def log(call: Call) -> Response:
    """GET /tare/log?image=…: every version before its parent, newer ones first."""
    found = await log_versions(call.engine, [text for text in call.repeated.get("image", ()) if text])
    return json_response([_version(one) for one in found])


async def names_log(call: Call) -> Response:
    """GET /tare/reflog?name=: newest first."""
    found = await reflog(call.engine, call.text("name"))
    return json_response([{**_move(move), "OldPresent": present} for move, present in found])


async def undo(call: Call) -> Response:
    """POST /tare/undo?name=: the name goes back to where it was before its last move."""
    if not call.text("name"):
        raise InvalidArgument("name must be given")
    return json_response(_move(await undo_move(call.engine, call.text("name"))))


async def checkout_(call: Call) -> Response:
    """POST /containers/{id}/checkout?image=&force=, or with name= a fork."""
    name, version = call.text("name"), call.text("image")
    if name:
        done = await fork(call.engine, call.path["id"], version, name)
    elif version:
        done = await checkout(call.engine, call.path["id"], version, force=call.flag("force"))
    else:
        raise InvalidArgument("image must be given")
    return json_response(
        {
            "Id": done.container_id,
            "Name": done.container_name,
            "Image": done.image_id,
            "Saved": done.saved_id,
            "SavedName": done.saved_name,
            "Restarted": done.restarted,
        }
    )


async def squash(call: Call) -> Response:
    """POST /tare/squash?from=&to=&tag=&message=&author=: from may be left out."""
    if not call.text("to"):
        raise InvalidArgument("to must be given")
    image_id = await squash_versions(
        call.engine,
        call.text("from"),
        call.text("to"),
        call.text("tag"),
        message=call.text("message"),
        author=call.text("author"),
    )
    return json_response({"Id": image_id}, 201)


def _version(one: Version) -> dict[str, Any]:
    return {
        "Id": one.image.id,
        "Parent": one.parent_id,
        "Tags": list(one.image.repo_tags),
        "Author": one.author,
        "Message": one.message,
        "CreatedBy": one.created_by,
        "Created": format_instant(one.image.created_ns),
        "OwnSize": one.own_bytes,
    }


def _move(move: Move) -> dict[str, Any]:
    return {
        "Name": move.reference.familiar,
        "Old": move.old_id or "",
        "New": move.new_id or "",
        "Time": format_rfc3339(move.time_ns),
        "Why": move.why,
    }


def _view(view: View) -> dict[str, str]:
    return {"Kind": view.kind, "Id": view.id, "Name": view.name}


def _difference(one: Difference) -> dict[str, Any]:
    made: dict[str, Any] = {"Path": printable(one.path), "Kind": _KINDS[one.kind]}
    if one.old is not None:
        made["Old"] = _facts(one.old)
    if one.new is not None:
        made["New"] = _facts(one.new)
    if one.what:
        made["What"] = list(one.what)
    if one.patch:
        made["Patch"] = printable(one.patch)
    if one.binary:
        made["Binary"] = True
    return made


def _facts(facts: Facts) -> dict[str, Any]:
    made: dict[str, Any] = {
        "Type": facts.type,
        "Mode": facts.mode,
        "Uid": facts.uid,
        "Gid": facts.gid,
        "Size": facts.size,
    }
    if facts.target:
        made["Target"] = printable(facts.target)
    if facts.device is not None:
        made["Device"] = list(facts.device)
    return made


def printable(text: str) -> str:
    """Text that surely is UTF-8: a name in a file system may not be."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


ROUTES = (
    Route("GET", "/tare/diff", "TareDiff", diff),
    Route("GET", "/tare/log", "TareLog", log),
    Route("GET", "/tare/reflog", "TareReflog", names_log),
    Route("POST", "/containers/{id}/checkout", "TareContainerCheckout", checkout_, finishes=True),
    Route("POST", "/tare/squash", "TareSquash", squash, finishes=True),
    Route("POST", "/tare/undo", "TareUndo", undo, finishes=True),
)
