"""`tare info`: shows the engine's state and settings."""

from __future__ import annotations

from tare.cli.command import FORMAT_INSPECT, CliError, Command, Values
from tare.cli.commands.version import client_facts
from tare.cli.infotext import info_lines, warning_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    from tare.cli.session import describe
    from tare.client.errors import ClientError

    info: dict[str, Any] = {}
    failure = ""
    try:
        info = session.engine.get("/info")
    except ClientError as error:
        failure = describe(error)
    client = client_facts(session.engine.version or "")
    template = flags.text("format")
    if template:
        from tare.cli.templated import render_one

        facts = {"Debug": False, **client, "Plugins": [], "Warnings": None}
        try:
            session.out(render_one(template, {**info, "ClientInfo": facts}))
        except CliError as error:
            session.out("")
            raise CliError(
                error.message.removeprefix("template parsing error: ") if error.code == 1 else error.message, error.code
            ) from None
    else:
        lines = ["Client: Tare", f" Version:    {client['Version']}", " Context:    default", " Debug Mode: false"]
        session.out("\n".join([*lines, "", "Server:"]))
        if info:
            session.out("\n".join(info_lines(info)) + "\n")
            for line in warning_lines(info):
                session.err(line)
    if failure:
        session.err(failure if template else f"{failure}\nerrors pretty printing info")
    return 1 if failure else 0


COMMAND = Command("", run, (FORMAT_INSPECT,), most=0)
