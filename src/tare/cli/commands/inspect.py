"""`tare inspect`: shows all that is known about containers, images, networks and volumes."""

from __future__ import annotations

from tare.cli.command import FORMAT_INSPECT, CliError, Command, Flag, Values
from tare.cli.inspecting import FINDERS, inspect_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    kind = flags.text("type")
    if "type" in flags.given and kind not in FINDERS:
        known = ", ".join(f'"{name}"' for name in FINDERS)
        raise CliError(f'unknown type: "{kind}": must be one of {known}')
    kinds = [kind] if kind else list(FINDERS)
    return inspect_all(session, arguments, kinds, flags.text("format"), flags.on("size"))


COMMAND = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]".removeprefix("[OPTIONS] "),
    run,
    (
        FORMAT_INSPECT,
        Flag("size", "s", "bool", "Show sizes too, of containers"),
        Flag("type", "", "string", "Only this kind of thing: container, image, network or volume"),
    ),
    least=1,
)
