"""`tare context import`: makes a context from a tar or zip archive."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Values
from tare.cli.contextual import MAX_ARCHIVE_BYTES, unpack
from tare.client.contexts import check_name, exists, write_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    name, path = arguments
    check_name(name)
    if exists(name):
        raise CliError(f'context "{name}" already exists')
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(MAX_ARCHIVE_BYTES + 1)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    write_context(unpack(name, data))
    session.out(name)
    session.err(f'Successfully imported context "{name}"')
    return 0


COMMAND = Command("CONTEXT FILE|-", run, least=2, most=2)
