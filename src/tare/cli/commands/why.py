"""`tare why`: tells in plain words what became of a container."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Values
from tare.cli.session import container_path
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    facts = session.engine.get(container_path(arguments[0], "json"))
    try:
        found = session.engine.get(container_path(facts["Id"], "why"))
    except ApiError as error:
        if error.status not in (404, 405):
            raise
        raise CliError("tare: this engine can't tell why (it is not Tare's, or an older one)") from None
    session.out(found["Summary"])
    for line in found["Details"]:
        session.out(f"  {line}")
    if found["Output"]:
        session.out("  The last lines of its output:")
        for line in found["Output"]:
            session.out(f"    {line}")
    return 0


COMMAND = Command("CONTAINER", run, least=1, most=1)
