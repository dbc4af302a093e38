"""`tare trash ls`: lists what was removed and can be restored."""

from __future__ import annotations

from tare.cli.command import FORMAT_TABLE, Command, Flag, Values
from tare.cli.listing import Row, print_rows
from tare.cli.moments import parse_moment
from tare.cli.units import format_ago, format_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


HEADERS = {
    "ID": "ID",
    "Name": "NAME",
    "Image": "IMAGE",
    "Removed": "REMOVED",
    "Size": "SIZE",
    "Until": "UNTIL",
    "Kind": "KIND",
}
COLUMNS = ("ID", "Kind", "Name", "Image", "Removed", "Size")
KIND = Flag("kind", "", "string", "Only these: container, volume or image", "")


def kind_query(flags: Values) -> dict[str, str | list[str]]:
    kind = flags.text("kind")
    return {"kind": kind} if kind else {}


def trash_row(entry: dict[str, Any]) -> Row:
    fields = {
        "ID": lambda: short_id(entry["Id"]),
        "Name": lambda: ", ".join(entry.get("Names") or [entry["Name"]]),
        "Image": lambda: entry["Image"],
        "Removed": lambda: format_ago(float(parse_moment(entry["Removed"]))),
        "Size": lambda: format_size(entry["Size"], 3),
        "Until": lambda: entry["Until"],
        "Kind": lambda: entry["Kind"],
    }
    return Row("*formatter.trashContext", fields)


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    found = session.engine.get("/tare/trash", kind_query(flags)) or []
    if flags.on("quiet"):
        for entry in found:
            session.out(short_id(entry["Id"]))
        return 0
    print_rows(session, [trash_row(entry) for entry in found], flags.text("format"), COLUMNS, HEADERS)
    return 0


COMMAND = Command("", run, (FORMAT_TABLE, KIND, Flag("quiet", "q", "bool", "Show ids only")), most=0)
