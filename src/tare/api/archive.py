"""Files in and out of a container: HEAD, GET and PUT /containers/{id}/archive."""

from __future__ import annotations

import base64
import stat

import msgspec

from tare.api.call import Call, empty_response
from tare.api.messages import Response
from tare.api.router import Route
from tare.engine import archive
from tare.errors import InvalidArgument
from tare.storage.rooted import PathFacts
from tare.values.timestamps import format_rfc3339

# Go's os.FileMode: the permission bits as they are, and what kind of file it is from the top bit down.
_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode."""
    found = mode & 0o777 | _KINDS.get(stat.S_IFMT(mode), 0)
    for bit, go in _BITS:
        found |= go if mode & bit else 0
    return found


def _headers(facts: PathFacts) -> dict[str, str]:
    document = {
        "name": facts.name,
        "size": facts.size,
        "mode": go_mode(facts.mode),
        "mtime": format_rfc3339(facts.mtime_ns),
        "linkTarget": facts.link_target,
    }
    text = base64.b64encode(msgspec.json.encode(document)).decode()
    return {"Content-Type": "application/x-tar", "X-Docker-Container-Path-Stat": text}


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidArgument("bad parameter: pathcannot be empty")  # Docker's text, to the letter
    if "\0" in path:
        raise InvalidArgument("bad parameter: path holds a NUL byte")
    return path


async def info(call: Call) -> Response:
    """HEAD /containers/{id}/archive: what the path is, in a header."""
    return Response(200, _headers(await archive.look_in_container(call.engine, call.path["id"], _path(call))))


async def get(call: Call) -> Response:
    """GET /containers/{id}/archive: the same, and a tar stream."""
    facts, stream = await archive.copy_from_container(call.engine, call.path["id"], _path(call))
    return Response(200, _headers(facts), stream)


async def put(call: Call) -> Response:
    """PUT /containers/{id}/archive: unpacks the body."""
    await archive.copy_into_container(
        call.engine,
        call.path["id"],
        _path(call),
        aiter(call.request.body),
        keep_kinds=call.flag("noOverwriteDirNonDir"),
        copy_owner=call.flag("copyUIDGID"),
    )
    return empty_response(200)


ROUTES = (
    Route("HEAD", "/containers/{id}/archive", "ContainerArchiveInfo", info),
    Route("GET", "/containers/{id}/archive", "ContainerArchive", get),
    Route("PUT", "/containers/{id}/archive", "PutContainerArchive", put, finishes=True),
)
