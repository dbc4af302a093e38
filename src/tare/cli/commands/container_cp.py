"""`tare cp`: copies files between a container and the local file system, or a tar stream on `-`."""

from __future__ import annotations

import os
import sys

from tare.cli import copying
from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.copying import Thing
from tare.cli.session import container_path
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tare.cli.session import Session
    from tare.client.engine import Response

_DIRECTORY, _LINK, _DEVICE = 1 << 31, 1 << 27, 1 << 26  # Go's os.FileMode


def _facts(response: Response) -> dict[str, Any]:
    from base64 import b64decode

    from tare.client.jsontext import parse_json

    text = response.head.headers.get("x-docker-container-path-stat", "")
    found = parse_json(b64decode(text))
    if not isinstance(found, dict):
        raise CliError("unable to decode container path stat header")
    return found


def _look(session: Session, container: str, path: str) -> dict[str, Any] | None:
    try:
        return _facts(session.engine.call("HEAD", container_path(container, "archive"), {"path": path}))
    except ApiError:
        return None  # the copy itself tells what is wrong


def _link_target(facts: dict[str, Any], path: str) -> str:
    target: str = facts["linkTarget"]
    return target if target.startswith("/") else copying.clean(os.path.join(copying.split_entry(path)[0], target))


class _Counted:
    """Passes pieces on and counts their bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.total = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.total += len(piece)
            yield piece


def _report(session: Session, flags: Values, count: int, where: str) -> None:
    quiet = flags.on("quiet") if "quiet" in flags.given else not os.isatty(1)
    if not quiet:
        from tare.cli.units import format_size

        session.err(f"Successfully copied {format_size(count, 3)} to {where}")


def copy_out(session: Session, flags: Values, container: str, path: str, destination: str) -> int:
    if destination != "-":
        destination = copying.local_path(destination)
        copying.check_local_output(destination)
    elif os.isatty(1):
        raise CliError("cowardly refusing to write an archive to a terminal. Redirect it")
    rebase = ""
    if flags.on("follow-link"):
        facts = _look(session, container, path)
        if facts and facts["mode"] & _LINK:
            path, rebase = copying.rebased(path, _link_target(facts, path))
    response = session.engine.call("GET", container_path(container, "archive"), {"path": path})
    if destination == "-":
        from tare.client.duplex import write_all

        sys.stdout.flush()
        for piece in response:
            write_all(1, piece)
        return 0
    from tare.cli.localtar import unpack

    source = Thing(path, True, bool(_facts(response)["mode"] & _DIRECTORY), rebase)
    directory, old, new = copying.placed(source, copying.local_destination(destination))
    if rebase:  # the archive still has the link's target's name
        old, new = copying.split_entry(path)[1], new if old or new else rebase
    count = unpack(response, directory, old, new)
    _report(session, flags, count, destination)
    return 0


def _destination(session: Session, container: str, path: str) -> Thing:
    """What is at the destination in the container, a link there followed."""
    facts = _look(session, container, path)
    where = path
    if facts and facts["mode"] & _LINK:
        where = _link_target(facts, path)
        facts = _look(session, container, where)
    if facts is None:
        return Thing(where, False, False)
    if facts["mode"] & _DEVICE:
        raise CliError(f'destination "{container}:{path}" must be a directory or a regular file: got a device')
    return Thing(where, True, bool(facts["mode"] & _DIRECTORY))


def copy_in(session: Session, flags: Values, source: str, container: str, path: str) -> int:
    target = _destination(session, container, path)
    if source == "-":
        if not target.is_directory:
            raise CliError(f'destination "{container}:{path}" must be a directory')
        from tare.cli.files import pieces_of

        directory, content = target.path, _Counted(pieces_of(0))
    else:
        from tare.cli.treetar import pack_copy

        thing = copying.local_source(copying.local_path(source), flags.on("follow-link"))
        directory, old, new = copying.placed(thing, target)
        own = copying.split_entry(thing.path)[1]
        name = copying.renamed(thing.rebase or own, old, new)
        os.stat(thing.path, follow_symlinks=False)
        content = _Counted(pack_copy(thing.path, name or "/"))
    query: dict[str, str | list[str]] = {"path": directory, "noOverwriteDirNonDir": "true"}
    if flags.on("archive"):
        query["copyUIDGID"] = "true"
    headers = {"Content-Type": "application/x-tar"}
    session.engine.call("PUT", container_path(container, "archive"), query, content, headers).read()
    _report(session, flags, content.total, f"{container}:{target.path}")
    return 0


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    for which, argument in zip(("source", "destination"), arguments, strict=True):
        if not argument:
            raise CliError(f"{which} can not be empty")
    source, source_path = copying.split_argument(arguments[0])
    target, target_path = copying.split_argument(arguments[1])
    try:
        if source and target:
            raise CliError("copying between containers is not supported")
        if source:
            return copy_out(session, flags, source, source_path, target_path)
        if target:
            return copy_in(session, flags, source_path, target, target_path)
    except OSError as error:
        what = "lstat" if isinstance(error, FileNotFoundError) else "copy"
        raise CliError(f"{what} {os.fspath(error.filename or '')}: {(error.strerror or str(error)).lower()}") from None
    raise CliError("must specify at least one container source")


COMMAND = Command(
    "CONTAINER:SOURCE DESTINATION|- or SOURCE|- CONTAINER:DESTINATION",
    run,
    (
        Flag("archive", "a", "bool", "Give what is copied in to the container's user"),
        Flag("follow-link", "L", "bool", "Copy what the source link leads to"),
        Flag("quiet", "q", "bool", "Don't tell how much was copied"),
    ),
    least=2,
    most=2,
)
