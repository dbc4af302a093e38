"""`tare context use`: chooses the context that is used by default."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Values
from tare.cli.contextual import OVERRIDES, overriding
from tare.client.config_file import write_config_key
from tare.client.contexts import check_name, read_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    name = arguments[0]
    if name != "default":
        check_name(name)
        read_context(name)
    try:
        write_config_key("currentContext", None if name == "default" else name)
    except (OSError, ValueError) as error:
        raise CliError(f"can't store the choice: {error}") from None
    session.out(name)
    session.err(f'Current context is now "{name}"')
    if overriding() and name != "default":
        session.err(OVERRIDES.format(overriding(), name))
    return 0


COMMAND = Command("CONTEXT", run, least=1, most=1)
