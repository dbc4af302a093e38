"""`tare exec`: runs one more command in a running container and ends with its exit code."""

from __future__ import annotations

from tare.cli.attaching import Stay, check_tty
from tare.cli.command import DETACH_KEYS, CliError, Command, Flag, Values
from tare.cli.create.checks import check_env
from tare.cli.create.settings import read_environment
from tare.cli.session import container_path
from tare.cli.terminal import terminal_size
from tare.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


def exec_body(flags: Values, command: list[str]) -> dict[str, Any]:
    attached = not flags.on("detach")
    try:
        environment = read_environment(flags.items("env-file"), flags.items("env"))
    except ValueError as error:
        raise CliError(str(error)) from None
    return {
        "User": flags["user"],
        "Privileged": flags["privileged"],
        "Tty": flags["tty"],
        "AttachStdin": attached and flags.on("interactive"),
        "AttachStderr": attached,
        "AttachStdout": attached,
        "Detach": flags["detach"],
        "DetachKeys": flags["detach-keys"],
        "Env": environment or None,
        "WorkingDir": flags["workdir"],
        "Cmd": command,
    }


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    body = exec_body(flags, arguments[1:])
    session.engine.get(container_path(arguments[0], "json"))  # says that it isn't there before the terminal is judged
    if not flags.on("detach"):
        check_tty(body["AttachStdin"], body["Tty"])
    start: dict[str, Any] = {"Detach": flags["detach"], "Tty": flags["tty"]}
    rows, columns = terminal_size()
    if flags.on("tty") and rows and columns:
        body["ConsoleSize"] = start["ConsoleSize"] = [rows, columns]
    identity = session.engine.post(container_path(arguments[0], "exec"), None, body)["Id"]
    path = f"/exec/{quote(identity)}"
    if flags.on("detach"):
        session.engine.post(f"{path}/start", None, start)
        return 0
    stay = Stay(session, path, flags.on("tty"), body["AttachStdin"], flags["detach-keys"])
    wire = session.engine.hijack(f"{path}/start", None, start)
    if not stay.run(wire, None, None):
        raise CliError("read escape sequence")
    return int(session.engine.get(f"{path}/json").get("ExitCode") or 0)


COMMAND = Command(
    "CONTAINER COMMAND [ARG...]",
    run,
    (
        Flag("detach", "d", "bool", "Run it in the background"),
        DETACH_KEYS,
        Flag("env", "e", "list", "Set environment variables", check=check_env),
        Flag("env-file", "", "list", "Read environment variables from a file"),
        Flag("interactive", "i", "bool", "Keep STDIN open"),
        Flag("privileged", "", "bool", "Give the command all rights"),
        Flag("tty", "t", "bool", "Give it a terminal"),
        Flag("user", "u", "string", "User, by name or number: user[:group]"),
        Flag("workdir", "w", "string", "Directory in which the command runs"),
    ),
    least=2,
    interspersed=False,
)
