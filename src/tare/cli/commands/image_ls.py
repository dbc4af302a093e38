"""`tare images`: lists images."""

from __future__ import annotations

from tare.cli.command import FILTER, FORMAT_TABLE, NO_TRUNC, CliError, Command, Flag, Values
from tare.cli.imagerows import HEADERS, image_rows
from tare.cli.listing import print_rows
from tare.client.engine import format_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


RAW = """repository: {{.Repository}}
{{if .Tag}}tag: {{.Tag}}
{{end}}image_id: {{.ID}}
created_at: {{.CreatedAt}}
virtual_size: {{.Size}}
"""


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if flags.on("tree"):
        from tare.cli.imagetree import print_tree

        session.require("1.47", '"--tree"')
        if flags.on("quiet") or flags.on("no-trunc") or flags.on("digests") or flags.text("format"):
            raise CliError("--tree can't be used with --quiet, --no-trunc, --digests or --format")
    query: dict[str, str | list[str]] = {}
    if flags.on("all"):
        query["all"] = "1"
    filters = [item for item in flags.items("filter") if item]
    filters += [f"reference={arguments[0]}"] if arguments else []
    if filters:
        query["filters"] = format_filters(filters)
    if flags.on("tree"):
        print_tree(session, session.engine.get("/images/json", {**query, "manifests": "1"}) or [])
        return 0
    found = session.engine.get("/images/json", query) or []
    template = flags.text("format")
    digests = flags.on("digests") or "{{.Digest}}" in template
    rows = image_rows(found, flags.on("no-trunc"), digests)
    if flags.on("quiet"):
        if template:
            session.err("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        for row in rows:
            session.out(row.text("ID"))
        return 0
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if flags.on("digests"):
        columns.insert(2, "Digest")
    print_rows(session, rows, RAW if template == "raw" else template, columns, HEADERS)
    return 0


COMMAND = Command(
    "[REPOSITORY[:TAG]]",
    run,
    (
        Flag("all", "a", "bool", "Show intermediate images too"),
        Flag("digests", "", "bool", "Show digests"),
        FILTER,
        FORMAT_TABLE,
        NO_TRUNC,
        Flag("quiet", "q", "bool", "Show ids only"),
        Flag("tree", "", "bool", "Show images with all their names and platforms as a tree"),
    ),
    most=1,
)
