"""Removing what nobody uses: the question, the calls, the report."""

from __future__ import annotations

from tare.cli.units import format_size
from tare.client.engine import format_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tare.cli.command import Values
    from tare.cli.session import Session

    Query = dict[str, str | list[str]]


class Report:
    """What was removed, the bytes that it freed, and those that wait in the trash."""

    __slots__ = ("freed", "text", "waiting")

    def __init__(self, text: str, freed: int, waiting: int = 0) -> None:
        self.text = text
        self.freed = freed
        self.waiting = waiting


def run_prune(session: Session, flags: Values, warning: str, prune: Callable[[], Report], total: bool = True) -> int:
    if not flags.on("force") and not session.confirm(f"{warning}\nAre you sure you want to continue?"):
        return 0
    report = prune()
    if report.text:
        session.out(report.text)
    if total:
        session.out(f"Total reclaimed space: {format_size(report.freed)}")
    if report.waiting:
        waiting = format_size(report.waiting)
        session.err(f"{waiting} went to the trash ('tare trash restore' undoes it, 'tare trash empty' frees the space)")
    return 0


def _query(filters: list[str], keep: bool) -> Query:
    wanted = [item for item in filters if item]
    query: Query = {"filters": format_filters(wanted)} if wanted else {}
    return query if keep else {**query, "trash": "0"}


def _report(text: str, answer: dict[str, Any]) -> Report:
    trash = (answer.get("Tare") or {}).get("Trash") or {}
    waiting = trash.get("Size", 0)
    return Report(text, answer.get("SpaceReclaimed", 0) - waiting, waiting)


def _listing(title: str, names: list[str]) -> str:
    return "\n".join([title, *names, ""]) if names else ""


def prune_containers(session: Session, filters: list[str], keep: bool = True) -> Report:
    answer = session.engine.post("/containers/prune", _query(filters, keep))
    return _report(_listing("Deleted Containers:", answer.get("ContainersDeleted") or []), answer)


def prune_networks(session: Session, filters: list[str]) -> Report:
    answer = session.engine.post("/networks/prune", _query(filters, True))
    return Report(_listing("Deleted Networks:", answer.get("NetworksDeleted") or []), 0)


def prune_volumes(session: Session, filters: list[str], everything: bool, keep: bool = True) -> Report:
    if everything:
        session.require("1.42", "--all")
        filters = [*filters, "all=true"]
    answer = session.engine.post("/volumes/prune", _query(filters, keep))
    return _report(_listing("Deleted Volumes:", answer.get("VolumesDeleted") or []), answer)


def prune_images(session: Session, filters: list[str], everything: bool, keep: bool = True) -> Report:
    dangling = "false" if everything else "true"
    answer = session.engine.post("/images/prune", _query([*filters, f"dangling={dangling}"], keep))
    lines = []
    for item in answer.get("ImagesDeleted") or []:
        lines.append(f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}")
    return _report(_listing("Deleted Images:", lines), answer)
