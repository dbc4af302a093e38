"""`tare wait`: waits until containers stop, and prints their exit codes."""

from __future__ import annotations

from tare.cli.command import Command, Values
from tare.cli.session import container_path, describe
from tare.client.errors import CannotConnect, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    failures = []
    for name in arguments:
        try:
            answer = session.engine.post(container_path(name, "wait"))
        except CannotConnect:
            raise
        except ClientError as error:
            failures.append(describe(error))
        else:
            session.out(str(answer["StatusCode"]))
    for failure in failures:
        session.err(failure)
    return 1 if failures else 0


COMMAND = Command("CONTAINER [CONTAINER...]", run, least=1)
