"""`tare commit`: makes an image from what a container has changed."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.names import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {
        "author": flags.text("author"),
        "comment": flags.text("message"),
        "container": arguments[0],
        "repo": "",
        "tag": "",
    }
    if len(arguments) > 1 and arguments[1]:
        try:
            reference = parse_reference(arguments[1])
        except ValueError as error:
            raise CliError(str(error)) from None
        if reference.digest:
            raise CliError("refusing to create a tag with a digest reference")
        query["repo"], query["tag"] = reference.full, reference.tag
    if flags.items("change"):
        query["changes"] = flags.items("change")
    if flags.on("no-pause") or not flags.on("pause"):
        query["pause"] = "0"
    session.out(session.engine.post("/commit", query)["Id"])
    return 0


COMMAND = Command(
    "CONTAINER [REPOSITORY[:TAG]]",
    run,
    (
        Flag("author", "a", "string", "Who made it"),
        Flag("change", "c", "list", "Apply a Dockerfile instruction to the image"),
        Flag("message", "m", "string", "Message that history shows"),
        Flag("no-pause", "", "bool", "Don't freeze the container meanwhile"),
        Flag("pause", "p", "bool", "", True),
    ),
    least=1,
    most=2,
)
