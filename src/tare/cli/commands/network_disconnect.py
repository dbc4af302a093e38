"""`tare network disconnect`: disconnects a container from a network."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    body = {"Container": arguments[1], "Force": flags["force"]}
    session.engine.post(f"/networks/{quote(arguments[0])}/disconnect", None, body)
    return 0


COMMAND = Command(
    "NETWORK CONTAINER", run, (Flag("force", "f", "bool", "Even if the container is in a bad state"),), least=2, most=2
)
