"""`tare reflog`: shows where names of images were before."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.cli.versions import ago, ask, short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    from tare.cli.table import format_table

    query: dict[str, str | list[str]] = {"name": arguments[0]} if arguments else {}
    rows = [["NAME", "FROM", "TO", "BY", "WHEN"]]
    for move in ask(session, "GET", "/tare/reflog", query):
        old = short(move["Old"]) or "-"
        if move["Old"] and not move["OldPresent"]:
            old += " (gone)"
        rows.append([move["Name"], old, short(move["New"]) or "-", move["Why"], ago(move["Time"])])
    session.out(format_table(rows))
    return 0


COMMAND = Command("[NAME]", run, most=1)
