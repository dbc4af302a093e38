"""`tare start`: starts stopped containers; with --attach or --interactive, one, and stays with it."""

from __future__ import annotations

from tare.cli.command import DETACH_KEYS, CliError, Command, Flag, Values
from tare.cli.session import container_path, describe
from tare.client.errors import CannotConnect, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if flags.on("attach") or flags.on("interactive"):
        if len(arguments) > 1:
            raise CliError("you cannot start and attach multiple containers at once")
        return start_attached(session, flags, arguments[0])
    query: dict[str, str | list[str]] = {}
    if flags["checkpoint"]:
        query["checkpoint"] = flags.text("checkpoint")
    if flags["checkpoint-dir"]:
        query["checkpoint-dir"] = flags.text("checkpoint-dir")
    failed = []
    for name in arguments:
        try:
            session.engine.post(container_path(name, "start"), query)
        except CannotConnect:
            raise
        except ClientError as error:
            session.err(describe(error))
            failed.append(name)
        else:
            session.out(name)
    if failed:
        raise CliError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def start_attached(session: Session, flags: Values, name: str) -> int:
    from tare.cli.attaching import Stay, attach_query, begin_wait, check_tty, exit_code_of, kill_forwarder

    facts = session.engine.get(container_path(name, "json"))
    config = facts["Config"]
    identity = facts["Id"]
    stdin = flags.on("interactive") and bool(config.get("OpenStdin"))
    check_tty(stdin, config["Tty"])
    stay = Stay(session, f"/containers/{identity}", config["Tty"], stdin, flags["detach-keys"])
    wire = session.engine.hijack(f"/containers/{identity}/attach", attach_query(stay, flags["detach-keys"]))
    removed = bool(facts["HostConfig"].get("AutoRemove"))
    waiting = begin_wait(session, identity, "removed" if removed else "next-exit")

    def begin() -> None:
        session.engine.post(f"/containers/{identity}/start")

    forward = kill_forwarder(session, identity) if flags.on("sig-proxy") else None
    if not stay.run(wire, begin, forward):
        return 0
    return exit_code_of(session, waiting)


COMMAND = Command(
    "CONTAINER [CONTAINER...]",
    run,
    (
        Flag("attach", "a", "bool", "Show its output, and pass signals on to it"),
        Flag("checkpoint", "", "string", "Go on from this checkpoint"),
        Flag("checkpoint-dir", "", "string", "Where checkpoints are kept"),
        DETACH_KEYS,
        Flag("interactive", "i", "bool", "Connect its STDIN"),
        Flag("sig-proxy", "", "bool", "", True),
    ),
    least=1,
)
