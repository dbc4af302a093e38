"""`tare load`: loads images from a tar archive."""

from __future__ import annotations

import os

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.files import open_archive, pieces_of
from tare.cli.progress import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    source = flags.text("input")
    if source:
        try:
            archive_fd = open_archive(source)
        except OSError as error:
            raise CliError(f"open {source}: {(error.strerror or str(error)).lower()}") from None
    else:
        if os.isatty(0):
            raise CliError("requested load from stdin, but stdin is empty")
        archive_fd = 0
    query: dict[str, str | list[str]] = {}
    if flags.on("quiet") or not os.isatty(1):
        query["quiet"] = "1"
    if flags["platform"]:
        from tare.cli.commands.image_rm import parse_platform

        session.require("1.48", "--platform")
        query["platform"] = [parse_platform(text) for text in flags["platform"]]
    headers = {"Content-Type": "application/x-tar"}
    response = session.engine.call("POST", "/images/load", query, pieces_of(archive_fd), headers)
    if "json" in response.head.headers.get("content-type", ""):
        show_progress(response.messages())
    else:
        session.out(response.read().decode("utf-8", "replace").removesuffix("\n"))
    return 0


COMMAND = Command(
    "",
    run,
    (
        Flag("input", "i", "string", "Read this file instead of STDIN"),
        Flag("platform", "", "strings", "Load only these platforms' variants"),
        Flag("quiet", "q", "bool", "Don't show how it goes"),
    ),
    most=0,
)
