"""`tare checkout`: takes a container back to a version, or forks a new container from one."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.flags import check_count
from tare.cli.session import container_path
from tare.cli.versions import ask, short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    fork = flags.text("branch")
    check_count(session.path, COMMAND.usage, 1 if fork else 2, 2, arguments)
    query: dict[str, str | list[str]] = {}
    if len(arguments) == 2:
        query["image"] = arguments[1]
    if fork:
        query["name"] = fork
    if flags.on("force"):
        query["force"] = "1"
    done = ask(session, "POST", container_path(arguments[0], "checkout"), query)
    if done["Saved"]:
        what = "What it is now" if fork else "What it had changed"
        session.err(f"{what} is kept as {done['SavedName']} ({short(done['Saved'])})")
    if fork:
        session.out(done["Id"])
        return 0
    again = ", started again" if done["Restarted"] else ""
    session.out(f"{done['Name']} is at {short(done['Image'])}{again}")
    return 0


COMMAND = Command(
    "CONTAINER IMAGE | -b NAME CONTAINER [IMAGE]",
    run,
    (
        Flag("branch", "b", "string", "Make a new container of this name instead, with the same settings", ""),
        Flag("force", "f", "bool", "Stop a running container, and start it again at the version"),
    ),
)
