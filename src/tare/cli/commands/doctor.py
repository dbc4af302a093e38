"""`tare doctor`: tells what this machine allows the engine, what is missing, and what that costs."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


MAX_WIDTH = 100
COLUMNS = (("Level", "LEVEL"), ("Name", "NAME"), ("Found", "FOUND"))


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    try:
        findings = session.engine.get("/tare/doctor") or []
    except ApiError as error:
        if error.status not in (404, 405):
            raise
        raise CliError("tare: this engine has no doctor (it is not Tare's, or an older one)") from None
    template = flags.text("format")
    if template:
        return show_template(session, findings, template)
    from tare.cli.table import format_table

    rows = [[title for _, title in COLUMNS]]
    rows += [[str(finding.get(key, "")) for key, _ in COLUMNS] for finding in findings]
    session.out(format_table(rows))
    for finding in findings:
        advice = [(label, finding.get(key)) for key, label in (("Costs", "costs"), ("Remedy", "remedy"))]
        lines = [line for label, text in advice if text for line in advice_lines(label, str(text))]
        if lines:
            session.out("\n".join(["", f"{finding.get('Name', '')}:", *lines]))
    return 0


def advice_lines(label: str, text: str) -> list[str]:
    from tare.cli.help import terminal_width, wrap

    width = min(terminal_width(), MAX_WIDTH)
    pieces = wrap(text, width - 11)
    return [f"  {label + ':' if not number else '':<8} {piece}" for number, piece in enumerate(pieces)]


def show_template(session: Session, findings: list[dict[str, Any]], template: str) -> int:
    from tare.cli.templated import render_one

    for finding in findings:
        session.out(render_one(template, finding))
    return 0


COMMAND = Command("", run, (Flag("format", "f", "string", "Show each through a Go template, or 'json'", ""),), most=0)
