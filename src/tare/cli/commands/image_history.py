"""`tare history`: shows how an image was made."""

from __future__ import annotations

from tare.cli.command import FORMAT_TABLE, NO_TRUNC, Command, Flag, Values
from tare.cli.listing import Row, print_rows
from tare.cli.session import image_path
from tare.cli.units import ellipsis, format_ago, format_local_rfc3339, format_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
CREATED_BY_WIDTH = 45


def history_row(item: dict[str, Any], full: bool, human: bool) -> Row:
    created_by = item["CreatedBy"].replace("\t", " ")
    fields = {
        "ID": lambda: item["Id"] if full else short_id(item["Id"]),
        "CreatedSince": lambda: format_ago(item["Created"]) if human else format_local_rfc3339(item["Created"]),
        "CreatedAt": lambda: format_local_rfc3339(item["Created"]),
        "CreatedBy": lambda: created_by if full else ellipsis(created_by, CREATED_BY_WIDTH),
        "Size": lambda: format_size(item["Size"], 3) if human else str(item["Size"]),
        "Comment": lambda: item["Comment"],
    }
    return Row("*formatter.historyContext", fields)


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {}
    if flags["platform"]:
        from tare.cli.commands.image_rm import parse_platform

        session.require("1.48", "--platform")
        query["platform"] = parse_platform(flags.text("platform"))
    found = session.engine.get(image_path(arguments[0], "history"), query) or []
    rows = [history_row(item, flags.on("no-trunc"), flags.on("human")) for item in found]
    if flags.on("quiet") and not flags["format"]:
        for row in rows:
            session.out(row.text("ID"))
        return 0
    created = "CreatedSince" if flags.on("human") else "CreatedAt"
    print_rows(session, rows, flags.text("format"), ("ID", created, "CreatedBy", "Size", "Comment"), HEADERS)
    return 0


COMMAND = Command(
    "IMAGE",
    run,
    (
        FORMAT_TABLE,
        Flag("human", "H", "bool", "Show sizes and dates the way people write them", True),
        NO_TRUNC,
        Flag("platform", "", "string", "Show this platform's variant"),
        Flag("quiet", "q", "bool", "Show ids only"),
    ),
    least=1,
    most=1,
)
