"""`tare rename`: gives a container another name."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Values
from tare.cli.session import container_path, describe
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    old, new = (name.strip() for name in arguments)
    if not old or not new:
        raise CliError("Error: Neither old nor new names may be empty")
    try:
        session.engine.post(container_path(old, "rename"), {"name": new})
    except ApiError as error:
        raise CliError(f"{describe(error)}\nError: failed to rename container named {old}") from None
    return 0


COMMAND = Command("CONTAINER NEW_NAME", run, least=2, most=2)
