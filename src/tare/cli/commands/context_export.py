"""`tare context export`: writes a context, its keys included, to an archive that only its owner can read."""

from __future__ import annotations

import os
import sys

from tare.cli.command import CliError, Command, Values
from tare.cli.contextual import find, pack
from tare.client.contexts import check_name
from tare.client.duplex import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    name = arguments[0]
    check_name(name)
    data = pack(find(session, name))
    path = arguments[1] if len(arguments) > 1 else f"{name}.dockercontext"
    if path == "-":
        if os.isatty(1):
            raise CliError("cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.flush()
        write_all(1, data)
        return 0
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        write_all(fd, data)
    finally:
        os.close(fd)
    session.err(f'Written file "{path}"')
    return 0


COMMAND = Command("CONTEXT [FILE|-]", run, least=1, most=2)
