"""`tare system prune`: removes all unused data."""

from __future__ import annotations

from tare.cli.command import FORCE_PRUNE, NO_TRASH, PRUNE_FILTER, Command, Flag, Values
from tare.cli.pruning import (
    Report,
    prune_containers,
    prune_images,
    prune_networks,
    prune_volumes,
    run_prune,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def warning_of(flags: Values) -> str:
    lines = ["  - all stopped containers", "  - all networks not used by at least one container"]
    if flags.on("volumes"):
        lines.append("  - all anonymous volumes not used by at least one container")
    if flags.on("all"):
        lines.append("  - all images without at least one container associated to them")
    else:
        lines.append("  - all dangling images")
    return "WARNING! This will remove:\n" + "\n".join(lines) + "\n"


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    filters, keep = flags.items("filter"), not flags.on("no-trash")

    def prune() -> Report:
        parts = [prune_containers(session, filters, keep), prune_networks(session, filters)]
        if flags.on("volumes"):
            parts.append(prune_volumes(session, filters, False, keep))
        parts.append(prune_images(session, filters, flags.on("all"), keep))
        text = "\n".join(part.text for part in parts if part.text)
        return Report(text, sum(part.freed for part in parts), sum(part.waiting for part in parts))

    return run_prune(session, flags, warning_of(flags), prune)


COMMAND = Command(
    "",
    run,
    (
        Flag("all", "a", "bool", "Remove all unused images, not just those without a name"),
        PRUNE_FILTER,
        FORCE_PRUNE,
        NO_TRASH,
        Flag("volumes", "", "bool", "Remove anonymous volumes too"),
    ),
    most=0,
)
