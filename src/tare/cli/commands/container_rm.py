"""`tare rm`: removes containers."""

from __future__ import annotations

from tare.cli.command import NO_TRASH, Command, Flag, Values
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {}
    for flag, key in (("force", "force"), ("volumes", "v"), ("link", "link")):
        if flags.on(flag):
            query[key] = "1"
    if flags.on("no-trash"):
        query["trash"] = "0"
    return session.for_all("DELETE", arguments, lambda name: container_path(name.strip("/")), query)


COMMAND = Command(
    "CONTAINER [CONTAINER...]",
    run,
    (
        Flag("force", "f", "bool", "Kill it first if it runs"),
        NO_TRASH,
        Flag("link", "l", "bool", "Remove the link, not the container"),
        Flag("volumes", "v", "bool", "Remove its anonymous volumes too"),
    ),
    least=1,
)
