"""`tare context show`: prints the name of the context in force."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.cli.contextual import current_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, _arguments: list[str]) -> int:
    session.out(current_name(session))
    return 0


COMMAND = Command("", run, most=0)
