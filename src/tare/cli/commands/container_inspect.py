"""`tare container inspect`: shows all that is known about containers."""

from __future__ import annotations

from tare.cli.command import FORMAT_INSPECT, Command, Flag, Values
from tare.cli.inspecting import inspect_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    return inspect_all(session, arguments, ["container"], flags.text("format"), flags.on("size"))


COMMAND = Command(
    "CONTAINER [CONTAINER...]",
    run,
    (
        FORMAT_INSPECT,
        Flag("size", "s", "bool", "Show sizes too"),
    ),
    least=1,
)
