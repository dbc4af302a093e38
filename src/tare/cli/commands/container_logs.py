"""`tare logs`: shows what a container has printed, and with --follow what it prints from now on."""

from __future__ import annotations

import sys

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.moments import parse_moment
from tare.cli.session import container_path
from tare.client.duplex import Demultiplexer, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    facts = session.engine.get(container_path(arguments[0], "json"))
    if flags.on("clear"):
        session.engine.call("DELETE", container_path(facts["Id"], "logs"), {}).read()
        return 0
    query: dict[str, str | list[str]] = {"stdout": "1", "stderr": "1", "tail": flags.text("tail")}
    for name in ("since", "until"):
        if flags[name]:
            try:
                query[name] = parse_moment(flags.text(name))
            except ValueError as error:
                raise CliError(f'invalid value for "{name}": {error}') from None
    for name in ("details", "follow", "timestamps"):
        if flags.on(name):
            query[name] = "1"
    response = session.engine.call("GET", container_path(facts["Id"], "logs"), query)
    sys.stdout.flush()
    if facts["Config"]["Tty"]:
        for piece in response:
            write_all(1, piece)
        return 0
    split = Demultiplexer(lambda data: write_all(1, data), lambda data: write_all(2, data))
    for piece in response:
        split.feed(piece)
    split.finish()
    return 0


COMMAND = Command(
    "CONTAINER",
    run,
    (
        Flag("clear", "", "bool", "Empty the log instead of showing it (Tare only)"),
        Flag("details", "", "bool", "Show the attributes that the log driver keeps"),
        Flag("follow", "f", "bool", "Go on with what it prints from now on"),
        Flag("since", "", "string", 'Only what is newer ("2013-01-02T13:23:37Z", or "42m" for 42 minutes ago)'),
        Flag("tail", "n", "string", "Only this many lines of the end", "all"),
        Flag("timestamps", "t", "bool", "Show when each line was printed"),
        Flag("until", "", "string", 'Only what is older ("2013-01-02T13:23:37Z", or "42m" for 42 minutes ago)'),
    ),
    least=1,
    most=1,
)
