"""`tare save`: writes images to a tar archive."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.files import write_archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {"names": arguments}
    if flags["platform"]:
        from tare.cli.commands.image_rm import parse_platform

        session.require("1.48", "--platform")
        query["platform"] = [parse_platform(text) for text in flags["platform"]]
    write_archive(
        flags.text("output"), "failed to save image", lambda: session.engine.call("GET", "/images/get", query)
    )
    return 0


COMMAND = Command(
    "IMAGE [IMAGE...]",
    run,
    (
        Flag("output", "o", "string", "Write to this file instead of STDOUT"),
        Flag("platform", "", "strings", "Save only these platforms' variants"),
    ),
    least=1,
)
