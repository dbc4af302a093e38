"""The commands that end a container's process within a time, by a signal: `stop` and `restart`."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def ending(verb: str) -> Command:
    """A command that posts to containers' `verb`."""

    def run(session: Session, flags: Values, arguments: list[str]) -> int:
        query: dict[str, str | list[str]] = {}
        if "timeout" in flags.given or "time" in flags.given:
            query["t"] = str(flags["timeout"] if "timeout" in flags.given else flags["time"])
        if flags["signal"]:
            session.require("1.42", "--signal")
            query["signal"] = flags.text("signal")
        return session.for_all("POST", arguments, lambda name: container_path(name, verb), query)

    return Command(
        "CONTAINER [CONTAINER...]",
        run,
        (
            Flag("signal", "s", "string", "Signal to stop it with"),
            Flag("time", "", "int", ""),
            Flag("timeout", "t", "int", "Seconds to wait before it is killed"),
        ),
        least=1,
    )
