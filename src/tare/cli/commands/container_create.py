"""`tare create`: makes a container without starting it."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.cli.create.flags import CREATE_FLAGS
from tare.cli.creating import create_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    created = create_container(session, flags, arguments, code=1)
    session.out(created.id)
    return 0


COMMAND = Command("IMAGE [COMMAND] [ARG...]", run, CREATE_FLAGS, least=1, interspersed=False)
