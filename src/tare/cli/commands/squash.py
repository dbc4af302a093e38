"""`tare squash`: makes one version of several that follow each other."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.versions import ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    below, dots, top = arguments[0].partition("..")
    if not dots:
        below, top = "", arguments[0]
    if not top:
        raise CliError("squash takes A..B: all that came after A up to B, or B alone for everything in it")
    query: dict[str, str | list[str]] = {"to": top}
    for key, value in (("from", below), ("tag", flags.text("tag")), ("message", flags.text("message"))):
        if value:
            query[key] = value
    if flags.text("author"):
        query["author"] = flags.text("author")
    session.out(ask(session, "POST", "/tare/squash", query)["Id"])
    return 0


COMMAND = Command(
    "[A..]B",
    run,
    (
        Flag("author", "a", "string", "Author of the new version", ""),
        Flag("message", "m", "string", "Its message (default: those of the versions squashed)", ""),
        Flag("tag", "t", "string", "Its name", ""),
    ),
    least=1,
    most=1,
)
