"""`tare diff`: shows which files a container has changed."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


KINDS = "CAD"


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    for change in session.engine.get(container_path(arguments[0], "changes")) or []:
        kind = change["Kind"]
        session.out(f"{KINDS[kind] if kind in (0, 1, 2) else '?'} {change['Path']}")
    return 0


COMMAND = Command("CONTAINER", run, least=1, most=1)
