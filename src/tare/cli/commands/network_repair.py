"""`tare network repair`: makes bridges, links and rules anew that somebody took away."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Values
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, _arguments: list[str]) -> int:
    try:
        repaired = session.engine.post("/tare/networks/repair", None, None)["Repaired"]
    except ApiError as error:
        if error.status not in (404, 405):
            raise
        raise CliError("tare: this engine can't repair its networks (it is not Tare's, or an older one)") from None
    for what in repaired:
        session.out(f"repaired: {what}")
    if not repaired:
        session.out("nothing was broken; all rules were written anew")
    return 0


COMMAND = Command("", run, most=0)
