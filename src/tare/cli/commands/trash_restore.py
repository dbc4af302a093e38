"""`tare trash restore`: brings removed containers, volumes and images back."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.commands.trash_ls import KIND, kind_query
from tare.cli.session import describe
from tare.client.engine import quote
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    name = flags.text("name")
    if name and len(arguments) > 1:
        raise CliError("--name names one thing only")
    query = kind_query(flags)
    if name:
        query["name"] = name
    failed = False
    for ref in arguments:
        try:
            found = session.engine.post(f"/tare/trash/{quote(ref)}/restore", query)
        except ApiError as error:
            session.err(describe(error))
            failed = True
        else:
            session.out(found["Name"])
            for name_taken in found.get("Taken") or []:
                session.err(f"{name_taken} is another image now: not given back")
    return 1 if failed else 0


COMMAND = Command(
    "REMOVED [REMOVED...]", run, (KIND, Flag("name", "", "string", "Name to give it (default: its own)", "")), least=1
)
