"""`tare volume inspect`: shows all that is known about volumes."""

from __future__ import annotations

from tare.cli.command import FORMAT_INSPECT, Command, Values
from tare.cli.inspecting import inspect_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    return inspect_all(session, arguments, ["volume"], flags.text("format"))


COMMAND = Command(
    "VOLUME [VOLUME...]",
    run,
    (FORMAT_INSPECT,),
    least=1,
)
