"""`tare trash empty`: deletes what was removed for good."""

from __future__ import annotations

from tare.cli.command import FORCE_PRUNE, Command, Values
from tare.cli.commands.trash_ls import KIND, kind_query
from tare.cli.pruning import Report, run_prune
from tare.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    def prune() -> Report:
        paths = [f"/tare/trash/{quote(ref)}" for ref in arguments] or ["/tare/trash"]
        answers = [session.engine.delete(path, kind_query(flags)) for path in paths]
        deleted = [ref for answer in answers for ref in answer["Deleted"]]
        lines = ["Deleted for good:", *deleted, ""] if deleted else []
        return Report("\n".join(lines), sum(answer["SpaceReclaimed"] for answer in answers))

    kind = flags.text("kind")
    what = "these" if arguments else f"all {kind}s in the trash" if kind else "all in the trash"
    return run_prune(session, flags, f"WARNING! This will delete {what} for good.", prune)


COMMAND = Command("[REMOVED...]", run, (FORCE_PRUNE, KIND))
