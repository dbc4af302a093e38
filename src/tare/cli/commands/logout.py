"""`tare logout`: forgets a registry's credentials."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.client.credentials import HUB_KEY, erase_credentials, server_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    key = server_key(arguments[0]) if arguments else HUB_KEY
    session.out(f"Removing login credentials for {key}")
    erase_credentials(key)
    return 0


COMMAND = Command("[SERVER]", run, most=1)
