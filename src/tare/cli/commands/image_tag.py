"""`tare tag`: gives an image another name, or puts a name back to where it was."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.flags import check_count
from tare.cli.names import parse_reference
from tare.cli.session import image_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if flags.on("undo"):
        return undo(session, arguments)
    check_count(session.path, COMMAND.usage, 2, 2, arguments)
    source, target = arguments
    try:
        reference = parse_reference(target)
    except ValueError as error:
        raise CliError(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    if reference.digest:
        raise CliError("refusing to create a tag with a digest reference")
    query: dict[str, str | list[str]] = {"repo": reference.full, "tag": reference.tag or "latest"}
    session.engine.post(image_path(source, "tag"), query)
    return 0


def undo(session: Session, arguments: list[str]) -> int:
    from tare.cli.versions import ask, short

    check_count(session.path, COMMAND.usage, 1, 1, arguments)
    move = ask(session, "POST", "/tare/undo", {"name": arguments[0]})
    if move["New"]:
        was = f" (was {short(move['Old'])})" if move["Old"] else ""
        session.out(f"{move['Name']} is {short(move['New'])} again{was}")
    else:
        session.out(f"{move['Name']} is gone again (was {short(move['Old'])})")
    return 0


COMMAND = Command(
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    run,
    (Flag("undo", "", "bool", ""),),  # told in the summary: with a flag to show, the usage line would not be Docker's
)
