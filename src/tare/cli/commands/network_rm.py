"""`tare network rm`: removes networks."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.session import describe
from tare.client.engine import quote
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    failed = False
    for name in arguments:
        try:
            session.engine.delete(f"/networks/{quote(name)}")
        except ApiError as error:
            if error.status == 404 and flags.on("force"):
                continue
            session.err(describe(error))
            failed = True
        else:
            session.out(name)
    return 1 if failed else 0


COMMAND = Command(
    "NETWORK [NETWORK...]", run, (Flag("force", "f", "bool", "Don't complain about one that isn't there"),), least=1
)
