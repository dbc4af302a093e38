"""`tare system pack`: keeps older versions of large files as what changed since, or makes them plain again."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.units import format_size
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    try:
        query: dict[str, str | list[str]] = {"unpack": "1"} if flags["unpack"] else {}
        done = session.engine.post("/tare/pack", query)
        usage = session.engine.get("/tare/pack")
    except ApiError as error:
        if error.status not in (404, 405):
            raise
        raise CliError("tare: this engine doesn't pack versions (it is not Tare's, or an older one)") from None
    if usage["SharesBlocks"] and not flags["unpack"]:
        session.out("versions share blocks on this file system: nothing needs to be packed")
        return 0
    verb = "unpacked" if flags["unpack"] else "packed"
    freed = "" if flags["unpack"] else f", {format_size(done['SpaceReclaimed'])} freed"
    session.out(f"{done['Files']} {'file' if done['Files'] == 1 else 'files'} {verb}{freed}")
    if done["Waiting"]:
        session.out(f"{done['Waiting']} wait until no container needs them")
    session.out(f"in packs: {format_size(usage['Size'])} of files as {format_size(usage['Packs'])}")
    return 0


COMMAND = Command("", run, (Flag("unpack", "", "bool", "Make all packed files plain again"),), most=0)
