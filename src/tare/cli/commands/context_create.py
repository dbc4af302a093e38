"""`tare context create`: makes a context."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.contextual import DESCRIPTION, DOCKER, find, set_endpoint
from tare.client.contexts import Context, check_name, exists, write_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    name = arguments[0]
    check_name(name)
    if exists(name):
        raise CliError(f'context "{name}" already exists')
    context = Context(name, "")
    if flags.items("docker"):
        if flags["from"]:
            raise CliError("cannot use --docker flag when --from is set")
        set_endpoint(session, context, flags.items("docker"))
    else:
        context = find(session, flags["from"] or "default")
        context.name = name
        context.document = {}
    if "description" in flags.given:
        context.description = flags.text("description")
    write_context(context)
    session.out(name)
    session.err(f'Successfully created context "{name}"')
    return 0


COMMAND = Command(
    "CONTEXT", run, (DESCRIPTION, DOCKER, Flag("from", "", "string", "Copy this context")), least=1, most=1
)
