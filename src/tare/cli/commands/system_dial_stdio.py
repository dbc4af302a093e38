"""`tare system dial-stdio`: the engine's socket on standard input and output, for a client at ssh's other end."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.client.duplex import Duplex, write_all
from tare.client.wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, _arguments: list[str]) -> int:
    """Ends when the engine closes its side: the input's end is passed on, and output may follow it."""
    wire = Wire(session.engine.host.connect())
    Duplex(wire, 0, lambda data: write_all(1, data)).run()
    return 0


COMMAND = Command("", run, most=0)
