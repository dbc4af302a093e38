"""`tare network update`: changes a network that may be in use."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if not flags["egress"]:
        raise CliError("tare: nothing to change: say --egress")
    for name in arguments:
        session.engine.post(f"/tare/networks/{quote(name)}/update", None, {"Egress": flags["egress"]})
        session.out(name)
    return 0


COMMAND = Command(
    "NETWORK [NETWORK...]",
    run,
    (Flag("egress", "", "string", "What its containers may send to: none, all or allow=SUBNET|NAME[:PORT],..."),),
    least=1,
)
