"""`tare attach`: connects the terminal to a running container."""

from __future__ import annotations

from tare.cli.attaching import Stay, attach_query, begin_wait, check_tty, exit_code_of, kill_forwarder
from tare.cli.command import DETACH_KEYS, CliError, Command, Flag, Values
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


def check_state(state: dict[str, Any]) -> None:
    if not state["Running"]:
        raise CliError("cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CliError("cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CliError("cannot attach to a restarting container, wait until it is running")


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    facts = session.engine.get(container_path(arguments[0], "json"))
    check_state(facts["State"])
    config, identity = facts["Config"], facts["Id"]
    stdin = bool(config.get("OpenStdin")) and not flags.on("no-stdin")
    check_tty(stdin, config["Tty"])
    waiting = begin_wait(session, identity, "")
    stay = Stay(session, f"/containers/{identity}", config["Tty"], stdin, flags["detach-keys"])
    wire = session.engine.hijack(f"/containers/{identity}/attach", attach_query(stay, flags["detach-keys"]))
    forward = kill_forwarder(session, identity) if flags.on("sig-proxy") else None
    if not stay.run(wire, None, forward):
        raise CliError("read escape sequence")
    return exit_code_of(session, waiting)


COMMAND = Command(
    "CONTAINER",
    run,
    (
        DETACH_KEYS,
        Flag("no-stdin", "", "bool", "Don't connect STDIN"),
        Flag("sig-proxy", "", "bool", "Pass signals on to the container's process", True),
    ),
    least=1,
    most=1,
)
