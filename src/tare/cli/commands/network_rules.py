"""`tare network rules`: shows the engine's packet filter in words."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    try:
        tables = session.engine.get("/tare/networks/rules")
    except ApiError as error:
        if error.status not in (404, 405):
            raise
        raise CliError("tare: this engine doesn't tell its rules (it is not Tare's, or an older one)") from None
    if template := flags.text("format"):
        from tare.cli.templated import render_one

        for table in tables:
            session.out(render_one(template, table))
        return 0
    session.out("\n\n".join("\n".join(lines_of(table)) for table in tables))
    return 0


def lines_of(table: dict[str, Any]) -> list[str]:
    """One table, as a text with a line for each rule and element."""
    broken = "" if table["Whole"] else "  (incomplete: tare network repair)"
    lines = [f"table {table['Family']} {table['Name']}{broken}"]
    for chain in table["Chains"]:
        lines.append(f"  chain {chain['Name']}  ({chain['Hook']}, priority {chain['Priority']})")
        for rule in chain["Rules"]:
            met = "" if rule["Packets"] is None else f"  [{rule['Packets']} packets]"
            lines.append(f"    {rule['Rule']}{met}")
    for item in table["Sets"]:
        if item["Elements"]:
            lines.append(f"  set {item['Name']}")
            lines += [f"    {element}" for element in item["Elements"]]
    return lines


COMMAND = Command("", run, (Flag("format", "f", "string", "Show each through a Go template, or 'json'", ""),), most=0)
