"""`tare volume rm`: removes volumes."""

from __future__ import annotations

from tare.cli.command import NO_TRASH, Command, Flag, Values
from tare.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {"force": "1"} if flags.on("force") else {}
    if flags.on("no-trash"):
        query["trash"] = "0"
    return session.for_each(arguments, lambda name: session.engine.delete(f"/volumes/{quote(name)}", query))


COMMAND = Command(
    "VOLUME [VOLUME...]",
    run,
    (Flag("force", "f", "bool", "Don't complain about one that isn't there"), NO_TRASH),
    least=1,
)
