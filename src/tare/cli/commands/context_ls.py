"""`tare context ls`: lists contexts."""

from __future__ import annotations

from tare.cli.command import FORMAT_TABLE, Command, Flag, Values
from tare.cli.contextual import current_name, default_context
from tare.cli.listing import Row, print_rows
from tare.client.contexts import Context, list_contexts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session

HEADERS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "DockerEndpoint": "DOCKER ENDPOINT",
    "Error": "ERROR",
    "Current": "",
}
COLUMNS = ("Name", "Description", "DockerEndpoint", "Error")


def context_row(context: Context, current: bool, mark: bool, failure: str = "") -> Row:
    fields = {
        "Name": lambda: context.name + (" *" if current and mark else ""),
        "Description": lambda: context.description,
        "DockerEndpoint": lambda: context.host,
        "Error": lambda: failure,
        "Current": lambda: current,
    }
    return Row("*formatter.clientContextContext", fields)


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    current = current_name(session)
    found = [default_context(session), *list_contexts()]
    template = flags.text("format")
    if flags.on("quiet"):
        session.out("\n".join(context.name for context in sorted(found, key=lambda context: context.name)))
        return 0
    mark = template in ("", "table")
    rows = [
        (context.name, context_row(context, context.name == current, mark, "" if context.host else "no endpoint"))
        for context in found
    ]
    if current not in [context.name for context in found]:
        lost = context_row(Context(current, ""), True, mark, f'context "{current}": context not found')
        rows.append((current, lost))
    rows.sort(key=lambda pair: pair[0])
    print_rows(session, [row for _, row in rows], template, COLUMNS, HEADERS)
    return 0


COMMAND = Command("", run, (FORMAT_TABLE, Flag("quiet", "q", "bool", "Show names only")), most=0)
