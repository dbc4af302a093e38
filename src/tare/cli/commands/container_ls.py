"""`tare ps`: lists containers."""

from __future__ import annotations

from tare.cli.command import FILTER, FORMAT_TABLE, NO_TRUNC, Command, Flag, Values
from tare.cli.containers import COLUMNS, HEADERS, container_row
from tare.cli.listing import print_rows
from tare.cli.units import short_id
from tare.client.engine import format_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {}
    last = 1 if flags.on("latest") and flags["last"] == -1 else flags["last"]
    if flags.on("all"):
        query["all"] = "1"
    if last > 0:
        query["limit"] = str(last)
    if flags.on("size") or wants_size(flags.text("format")):
        query["size"] = "1"
    filters = [item for item in flags.items("filter") if item]
    if filters:
        query["filters"] = format_filters(filters)
    found = session.engine.get("/containers/json", query) or []
    full = flags.on("no-trunc")
    if flags.on("quiet") and flags.text("format") not in ("table", "raw"):
        if flags.text("format"):
            session.err("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        for container in found:
            session.out(container["Id"] if full else short_id(container["Id"]))
        return 0
    columns = (*COLUMNS, "Size") if flags.on("size") else COLUMNS
    rows = [container_row(container, full) for container in found]
    template = flags.text("format")
    if flags.on("quiet") and template in ("table", "raw"):
        template = "{{.ID}}" if template == "table" else "container_id: {{.ID}}"
    elif template == "raw":
        template = RAW + ("size: {{.Size}}\n" if flags.on("size") else "")
    print_rows(session, rows, template, columns, HEADERS)
    return 0


RAW = """container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{- pad .State 1 0}}
status: {{- pad .Status 1 0}}
names: {{.Names}}
labels: {{- pad .Labels 1 0}}
ports: {{- pad .Ports 1 0}}
"""


def wants_size(template: str) -> bool:
    """Sizes are slow to find, so they are asked for only if the template shows them."""
    return ".Size" in template or ("{{" in template and "json ." in template and "json .}}" in template)


COMMAND = Command(
    "",
    run,
    (
        Flag("all", "a", "bool", "Show all containers, not just the running ones"),
        FILTER,
        FORMAT_TABLE,
        Flag("last", "n", "int", "Show the n newest containers, whatever their state", -1),
        Flag("latest", "l", "bool", "Show the newest container, whatever its state"),
        NO_TRUNC,
        Flag("quiet", "q", "bool", "Show ids only"),
        Flag("size", "s", "bool", "Show how much each container has written"),
    ),
    most=0,
)
