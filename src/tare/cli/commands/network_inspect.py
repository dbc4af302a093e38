"""`tare network inspect`: shows all that is known about networks."""

from __future__ import annotations

from tare.cli.command import FORMAT_INSPECT, Command, Flag, Values
from tare.cli.inspecting import inspect_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {"verbose": "true"} if flags.on("verbose") else {}
    return inspect_all(session, arguments, ["network"], flags.text("format"), query=query)


COMMAND = Command(
    "NETWORK [NETWORK...]",
    run,
    (
        FORMAT_INSPECT,
        Flag("verbose", "v", "bool", "Show more, to find what is wrong"),
    ),
    least=1,
)
