"""`tare import`: makes an image from a tar archive of a file system, or from a directory."""

from __future__ import annotations

import os

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.files import open_archive, pieces_of
from tare.cli.progress import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    source = arguments[0]
    query: dict[str, str | list[str]] = {}
    if len(arguments) > 1:
        query["repo"] = arguments[1]
    for flag, key in (("message", "message"), ("platform", "platform")):
        if flags[flag]:
            query[key] = flags.text(flag)
    if flags.items("change"):
        query["changes"] = flags.items("change")
    body = None
    if source == "-":
        body = pieces_of(0)
    elif source.startswith(("http://", "https://", "ftp://")):
        query["fromSrc"] = source
    elif os.path.isdir(source):
        from tare.cli.treetar import pack_tree

        query.setdefault("message", f"Imported from {os.path.basename(os.path.abspath(source)) or '/'}")
        body = pack_tree(source, flags.items("exclude"))
    else:
        try:
            body = pieces_of(open_archive(source))
        except OSError as error:
            raise CliError(f"open {source}: {(error.strerror or str(error)).lower()}") from None
    if body is not None:
        query["fromSrc"] = "-"
    response = session.engine.call("POST", "/images/create", query, body, {"Content-Type": "text/plain"})
    show_progress(response.messages())
    return 0


COMMAND = Command(
    "file|directory|URL|- [REPOSITORY[:TAG]]",
    run,
    (
        Flag("change", "c", "list", "Apply a Dockerfile instruction to the image"),
        Flag("exclude", "", "list", "Leave out of a directory what matches (a path in it, or a name, with * ? [])"),
        Flag("message", "m", "string", "Message that history shows"),
        Flag("platform", "", "string", "Platform of the image"),
    ),
    least=1,
)
