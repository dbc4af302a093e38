"""`tare trash restore`: brings removed containers back."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.session import describe
from tare.client.engine import quote
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    name = flags.text("name")
    if name and len(arguments) > 1:
        raise CliError("--name names one container only")
    query: dict[str, str | list[str]] = {"name": name} if name else {}
    failed = False
    for container in arguments:
        try:
            found = session.engine.post(f"/tare/trash/{quote(container)}/restore", query)
        except ApiError as error:
            session.err(describe(error))
            failed = True
        else:
            session.out(found["Name"])
    return 1 if failed else 0


COMMAND = Command(
    "CONTAINER [CONTAINER...]", run, (Flag("name", "", "string", "Name to give it (default: its own)", ""),), least=1
)
