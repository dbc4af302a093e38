"""`tare trash empty`: deletes removed containers for good."""

from __future__ import annotations

from tare.cli.command import FORCE_PRUNE, Command, Values
from tare.cli.pruning import run_prune
from tare.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    def prune() -> tuple[str, int]:
        paths = [f"/tare/trash/{quote(container)}" for container in arguments] or ["/tare/trash"]
        answers = [session.engine.delete(path) for path in paths]
        deleted = [container for answer in answers for container in answer["Deleted"]]
        lines = ["Deleted Containers:", *deleted, ""] if deleted else []
        return "\n".join(lines), sum(answer["SpaceReclaimed"] for answer in answers)

    what = "these containers" if arguments else "all containers in the trash"
    return run_prune(session, flags, f"WARNING! This will delete {what} for good.", prune)


COMMAND = Command("[CONTAINER...]", run, (FORCE_PRUNE,))
