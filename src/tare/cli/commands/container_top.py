"""`tare top`: shows the processes of a container."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.cli.session import container_path
from tare.cli.table import format_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


MIN_WIDTH = 20


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {"ps_args": " ".join(arguments[1:])} if arguments[1:] else {}
    found = session.engine.get(container_path(arguments[0], "top"), query)
    session.out(format_table([found["Titles"], *(found["Processes"] or [])], min_width=MIN_WIDTH))
    return 0


COMMAND = Command("CONTAINER [ps OPTIONS]", run, least=1, interspersed=False)
