"""`tare unpause`: thaws all processes of containers."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    return session.for_all("POST", arguments, lambda name: container_path(name, "unpause"))


COMMAND = Command("CONTAINER [CONTAINER...]", run, least=1)
