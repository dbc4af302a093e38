"""`tare image prune`: removes unused images."""

from __future__ import annotations

from tare.cli.command import FORCE_PRUNE, NO_TRASH, PRUNE_FILTER, Command, Flag, Values
from tare.cli.pruning import prune_images, run_prune

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


DANGLING = "WARNING! This will remove all dangling images."
ALL = "WARNING! This will remove all images without at least one container associated to them."


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    everything = flags.on("all")
    warning = ALL if everything else DANGLING
    keep = not flags.on("no-trash")
    return run_prune(session, flags, warning, lambda: prune_images(session, flags.items("filter"), everything, keep))


COMMAND = Command(
    "",
    run,
    (
        Flag("all", "a", "bool", "Remove all unused images, not just those without a name"),
        PRUNE_FILTER,
        FORCE_PRUNE,
        NO_TRASH,
    ),
    most=0,
)
