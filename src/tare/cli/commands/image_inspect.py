"""`tare image inspect`: shows all that is known about images."""

from __future__ import annotations

from tare.cli.command import FORMAT_INSPECT, Command, Flag, Values
from tare.cli.inspecting import inspect_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {}
    if flags["platform"]:
        from tare.cli.commands.image_rm import parse_platform

        session.require("1.49", "--platform")
        query["platform"] = parse_platform(flags.text("platform"))
    return inspect_all(session, arguments, ["image"], flags.text("format"), query=query)


COMMAND = Command(
    "IMAGE [IMAGE...]",
    run,
    (
        FORMAT_INSPECT,
        Flag("platform", "", "string", "Show this platform's variant"),
    ),
    least=1,
)
