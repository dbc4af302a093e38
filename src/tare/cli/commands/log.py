"""`tare log`: shows images as versions: which was made from which, by whom, why."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.versions import ago, ask, short, subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    found = ask(session, "GET", "/tare/log", {"image": arguments} if arguments else None)
    if flags["number"]:
        found = found[: int(flags["number"])]
    if flags.text("format") == "json":
        from tare.client.jsontext import format_json

        for version in found:
            session.out(format_json(version))
        return 0
    if flags.text("format"):
        raise CliError('log knows one format: "json"')
    if not flags.on("graph"):
        for version in found:
            session.out(line(version))
        return 0
    for text in graph_lines(found):
        session.out(text)
    return 0


def line(version: dict[str, Any]) -> str:
    """4f3c2a1b0d9e (web:latest) the message — author, 2 hours ago"""
    parts = [short(version["Id"])]
    if version["Tags"]:
        parts.append(f"({', '.join(version['Tags'])})")
    text = subject(version)
    if text:
        parts.append(text)
    author = f"{version['Author']}, " if version["Author"] else ""
    return f"{' '.join(parts)} — {author}{ago(version['Created'])}"


def graph_lines(found: list[dict[str, Any]]) -> list[str]:
    """The lines with the graph before them. Every version comes before its parent and has one at most."""
    shown = {version["Id"] for version in found}
    columns: list[str] = []  # the version that each branch comes to next
    lines: list[str] = []
    for version in found:
        identity = version["Id"]
        if identity not in columns:
            columns.append(identity)
        place = columns.index(identity)
        for other in range(len(columns) - 1, place, -1):
            if columns[other] == identity:
                lines.append(joining(place, other, len(columns)))
                del columns[other]
        left, right = "| " * place, "| " * (len(columns) - place - 1)
        lines.append(f"{left}* {right}{line(version)}")
        if version["Parent"] in shown:
            columns[place] = version["Parent"]
            continue
        del columns[place]
        if columns[place:]:
            lines.append(left + " /" * (len(columns) - place))
    return lines


def joining(place: int, other: int, count: int) -> str:
    """Branch `other` goes over into branch `place`; those right of it move up."""
    return "| " * place + "|_" * (other - place - 1) + "|/" + " /" * (count - other - 1)


COMMAND = Command(
    "[IMAGE...]",
    run,
    (
        Flag("format", "", "string", "One JSON object a line with 'json'", ""),
        Flag("graph", "", "bool", "Draw which version was made from which"),
        Flag("number", "n", "int", "Show only this many versions", 0),
    ),
)
