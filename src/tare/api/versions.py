"""Images as versions, which Docker's API doesn't have: the difference of any two."""

from __future__ import annotations

from typing import Any

from tare.api.call import Call, json_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine.compare import Difference, Facts, View, compare_views
from tare.errors import InvalidArgument

_KINDS = {"C": 0, "A": 1, "D": 2}


async def diff(call: Call) -> Response:
    """GET /tare/diff?from=&to=&patch=."""
    old, new = call.text("from"), call.text("to")
    if not old or not new:
        raise InvalidArgument("from and to must both be given")
    found = await compare_views(call.engine, old, new, patches=call.flag("patch"))
    changes = [_difference(one) for one in found.differences]
    return json_response({"From": _view(found.old), "To": _view(found.new), "Changes": changes})


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


ROUTES = (Route("GET", "/tare/diff", "TareDiff", diff),)
