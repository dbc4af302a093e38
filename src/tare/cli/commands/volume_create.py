"""`tare volume create`: makes a volume."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.create.checks import check_label, pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    name = flags.text("name")
    if arguments:
        if name:
            raise CliError(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
            )
        name = arguments[0]
    body: dict[str, object] = {"Driver": flags["driver"]}
    if name:
        body["Name"] = name
    for flag, key in (("opt", "DriverOpts"), ("label", "Labels")):
        if flags[flag]:
            body[key] = pairs(flags.items(flag))
    session.out(session.engine.post("/volumes/create", None, body)["Name"])
    return 0


COMMAND = Command(
    "[VOLUME]",
    run,
    (
        Flag("driver", "d", "string", "Driver of the volume", "local"),
        Flag("label", "", "list", "Set a label", check=check_label),
        Flag("name", "", "string", ""),
        Flag("opt", "o", "map", "Set an option of the driver"),
    ),
    most=1,
)
