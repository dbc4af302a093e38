"""`tare export`: writes a container's file system as a tar archive."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.files import write_archive
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    path = container_path(arguments[0], "export")
    write_archive(flags.text("output"), "failed to export container", lambda: session.engine.call("GET", path))
    return 0


COMMAND = Command(
    "CONTAINER", run, (Flag("output", "o", "string", "Write to this file instead of STDOUT"),), least=1, most=1
)
