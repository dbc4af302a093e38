"""Removing what nobody uses: the question, the calls, the report."""

from __future__ import annotations

from tare.cli.units import format_size
from tare.client.engine import format_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tare.cli.command import Values
    from tare.cli.session import Session

Report = tuple[str, int]  # what was removed, and the bytes that it freed


def run_prune(session: Session, flags: Values, warning: str, prune: Callable[[], Report], total: bool = True) -> int:
    if not flags.on("force") and not session.confirm(f"{warning}\nAre you sure you want to continue?"):
        return 0
    text, space = prune()
    if text:
        session.out(text)
    if total:
        session.out(f"Total reclaimed space: {format_size(space)}")
    return 0


def _query(filters: list[str]) -> dict[str, str | list[str]]:
    wanted = [item for item in filters if item]
    return {"filters": format_filters(wanted)} if wanted else {}


def _listing(title: str, names: list[str]) -> str:
    return "\n".join([title, *names, ""]) if names else ""


def prune_containers(session: Session, filters: list[str]) -> Report:
    answer = session.engine.post("/containers/prune", _query(filters))
    return _listing("Deleted Containers:", answer.get("ContainersDeleted") or []), answer.get("SpaceReclaimed", 0)


def prune_networks(session: Session, filters: list[str]) -> Report:
    answer = session.engine.post("/networks/prune", _query(filters))
    return _listing("Deleted Networks:", answer.get("NetworksDeleted") or []), 0


def prune_volumes(session: Session, filters: list[str], everything: bool) -> Report:
    if everything:
        session.require("1.42", "--all")
        filters = [*filters, "all=true"]
    answer = session.engine.post("/volumes/prune", _query(filters))
    return _listing("Deleted Volumes:", answer.get("VolumesDeleted") or []), answer.get("SpaceReclaimed", 0)


def prune_images(session: Session, filters: list[str], everything: bool) -> Report:
    dangling = "false" if everything else "true"
    answer = session.engine.post("/images/prune", _query([*filters, f"dangling={dangling}"]))
    lines = []
    for item in answer.get("ImagesDeleted") or []:
        lines.append(f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}")
    return _listing("Deleted Images:", lines), answer.get("SpaceReclaimed", 0)
