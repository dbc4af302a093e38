"""`tare container prune`: removes all stopped containers."""

from __future__ import annotations

from tare.cli.command import FORCE_PRUNE, NO_TRASH, PRUNE_FILTER, Command, Values
from tare.cli.pruning import prune_containers, run_prune

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


WARNING = "WARNING! This will remove all stopped containers."


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    return run_prune(
        session, flags, WARNING, lambda: prune_containers(session, flags.items("filter"), not flags.on("no-trash"))
    )


COMMAND = Command("", run, (PRUNE_FILTER, FORCE_PRUNE, NO_TRASH), most=0)
