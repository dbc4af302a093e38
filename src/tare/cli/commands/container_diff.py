"""`tare diff`: shows which files a container has changed, or what differs between any two of image and container."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.session import container_path
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


KINDS = "CAD"


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if len(arguments) == 2:
        return compare(session, flags, arguments[0], arguments[1])
    if flags.given:
        raise CliError("--patch and --format need two things to compare: tare diff A B")
    for change in session.engine.get(container_path(arguments[0], "changes")) or []:
        kind = change["Kind"]
        session.out(f"{KINDS[kind] if kind in (0, 1, 2) else '?'} {change['Path']}")
    return 0


def compare(session: Session, flags: Values, old: str, new: str) -> int:
    query: dict[str, str | list[str]] = {"from": old, "to": new}
    if flags.on("patch"):
        query["patch"] = "1"
    try:
        found = session.engine.get("/tare/diff", query)
    except ApiError as error:
        if error.status != 404 or "page not found" not in error.message:
            raise
        raise CliError("tare: this engine can't compare (it is not Tare's, or an older one)") from None
    changes = found["Changes"] or []
    if flags.text("format") == "json":
        from tare.client.jsontext import format_json

        for change in changes:
            session.out(format_json(change))
    elif flags.text("format"):
        raise CliError('diff knows one format: "json"')
    elif flags.on("patch"):
        show_patches(session, changes)
    else:
        for change in changes:
            session.out(f"{KINDS[change['Kind']]} {change['Path']}  ({describe(change)})")
    return 0


def describe(change: dict[str, Any]) -> str:
    """What changed, in words: (file, 0644, 12B), (content: 12B → 15B; mode: 0644 → 0755)."""
    old, new = change.get("Old"), change.get("New")
    if not (old and new):
        return whole(new or old or {})
    return "; ".join(one_change(what, old, new) for what in change.get("What") or [])


def whole(facts: dict[str, Any]) -> str:
    parts = [facts["Type"]]
    if facts["Type"] == "link":
        return f"link to {facts.get('Target', '')}"
    parts.append(f"{facts['Mode']:04o}")
    if facts["Uid"] or facts["Gid"]:
        parts.append(f"{facts['Uid']}:{facts['Gid']}")
    if facts["Type"] == "file":
        parts.append(size(facts))
    if facts.get("Device"):
        parts.append("{}:{}".format(*facts["Device"]))
    return ", ".join(parts)


def one_change(what: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    if what == "type":
        return f"{whole(old)} → {whole(new)}"
    if what == "mode":
        return f"mode: {old['Mode']:04o} → {new['Mode']:04o}"
    if what == "owner":
        return f"owner: {old['Uid']}:{old['Gid']} → {new['Uid']}:{new['Gid']}"
    if what == "target":
        return f"link to {old.get('Target', '')} → {new.get('Target', '')}"
    if what == "content":
        return f"content: {size(old)} → {size(new)}"
    return what


def size(facts: dict[str, Any]) -> str:
    from tare.cli.units import format_size

    return format_size(facts["Size"], 3)


def show_patches(session: Session, changes: list[dict[str, Any]]) -> None:
    """As git shows them: a line for each path, then the text."""
    for change in changes:
        path = change["Path"].lstrip("/")
        session.out(f"diff --tare a/{path} b/{path}")
        old, new = change.get("Old"), change.get("New")
        if old and new:
            for what in change.get("What") or []:
                if what != "content":
                    session.out(one_change(what, old, new))
        else:
            session.out(f"{'deleted' if old else 'new'}: {whole(old or new or {})}")
        if change.get("Binary"):
            session.out(f"Binary files a/{path} and b/{path} differ")
        elif change.get("Patch"):
            session.out(change["Patch"].rstrip("\n"))


COMMAND = Command(
    "CONTAINER | A B",
    run,
    (
        Flag("format", "", "string", "With A and B: one JSON object a line with 'json'", ""),
        Flag("patch", "p", "bool", "With A and B (images, commits or containers): show how text files changed"),
    ),
    least=1,
    most=2,
)
