"""`tare volume prune`: removes unused volumes."""

from __future__ import annotations

from tare.cli.command import FORCE_PRUNE, NO_TRASH, PRUNE_FILTER, Command, Flag, Values
from tare.cli.pruning import prune_volumes, run_prune

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


ANONYMOUS = "WARNING! This will remove anonymous local volumes not used by at least one container."
ALL = "WARNING! This will remove all local volumes not used by at least one container."


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    everything = flags.on("all")
    # Before 1.42 the engine's prune took named volumes too.
    warning = ALL if everything or not session.engine.at_least("1.42") else ANONYMOUS
    keep = not flags.on("no-trash")
    return run_prune(session, flags, warning, lambda: prune_volumes(session, flags.items("filter"), everything, keep))


COMMAND = Command(
    "",
    run,
    (Flag("all", "a", "bool", "Remove named ones too"), PRUNE_FILTER, FORCE_PRUNE, NO_TRASH),
    most=0,
)
