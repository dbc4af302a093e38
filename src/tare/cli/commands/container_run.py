"""`tare run`: makes a container, attaches to it, starts it, and ends with its exit code."""

from __future__ import annotations

from tare.cli.attaching import (
    EXIT_ENGINE,
    Stay,
    attach_query,
    begin_wait,
    check_tty,
    exit_code_of,
    kill_forwarder,
    start_failure_code,
)
from tare.cli.command import DETACH_KEYS, CliError, Command, Flag, Values
from tare.cli.create.flags import CREATE_FLAGS
from tare.cli.creating import Created, create_container
from tare.cli.session import describe
from tare.client.errors import ApiError, CannotConnect, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    detach = flags.on("detach")
    if detach and flags.items("attach"):
        raise CliError("conflicting options: cannot specify both --attach and --detach")
    if not detach:
        wanted = flags.items("attach")
        check_tty(flags.on("interactive") or "stdin" in wanted, flags.on("tty"))
    try:
        created = create_container(session, flags, arguments, code=EXIT_ENGINE)
        if detach:
            session.engine.post(f"/containers/{created.id}/start")
            session.out(created.id)
            return 0
        return run_attached(session, flags, created)
    except CannotConnect as error:
        raise CliError(describe(error), EXIT_ENGINE, prefix=True) from error
    except ApiError as error:
        raise CliError(describe(error), start_failure_code(error), prefix=True) from error
    except ClientError as error:
        raise CliError(describe(error), EXIT_ENGINE, prefix=True) from error


def run_attached(session: Session, flags: Values, created: Created) -> int:
    config = created.body
    stay = Stay(session, f"/containers/{created.id}", config["Tty"], config["AttachStdin"], flags["detach-keys"])
    stay.stdout, stay.stderr = config["AttachStdout"], config["AttachStderr"]
    path = f"/containers/{created.id}"
    wire = session.engine.hijack(f"{path}/attach", attach_query(stay, flags["detach-keys"]))
    removed = flags.on("rm")
    waiting = begin_wait(session, created.id, "removed" if removed else "next-exit")

    def begin() -> None:
        try:
            session.engine.post(f"{path}/start")
        except ApiError:
            if removed:
                exit_code_of(session, waiting)  # when the command ends, the container is gone
            raise

    forward = kill_forwarder(session, created.id) if flags.on("sig-proxy") else None
    if not stay.run(wire, begin, forward):
        return 0
    return exit_code_of(session, waiting)


RUN_FLAGS = (
    Flag("detach", "d", "bool", "Run it in the background and print its id"),
    DETACH_KEYS,
    Flag("sig-proxy", "", "bool", "Pass signals on to the container's process", True),
)
COMMAND = Command("IMAGE [COMMAND] [ARG...]", run, CREATE_FLAGS + RUN_FLAGS, least=1, interspersed=False)
