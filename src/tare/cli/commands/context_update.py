"""`tare context update`: changes a context."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.cli.contextual import DESCRIPTION, DOCKER, set_endpoint
from tare.client.contexts import check_name, read_context, write_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    name = arguments[0]
    check_name(name)
    context = read_context(name)
    if "description" in flags.given:
        context.description = flags.text("description")
    if flags.items("docker"):
        set_endpoint(session, context, flags.items("docker"))
    write_context(context)
    session.out(name)
    session.err(f'Successfully updated context "{name}"')
    return 0


COMMAND = Command("CONTEXT", run, (DESCRIPTION, DOCKER), least=1, most=1)
