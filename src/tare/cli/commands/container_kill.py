"""`tare kill`: sends a signal to containers."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {"signal": flags.text("signal")} if flags["signal"] else {}
    return session.for_all("POST", arguments, lambda name: container_path(name, "kill"), query)


COMMAND = Command(
    "CONTAINER [CONTAINER...]", run, (Flag("signal", "s", "string", "Signal to send (default KILL)"),), least=1
)
