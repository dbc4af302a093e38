"""`tare system thin`: gives up compressed layers that are kept as they came, for their space."""

from __future__ import annotations

from tare.cli.command import FORCE_PRUNE, CliError, Command, Values
from tare.cli.pruning import Report, run_prune
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session

WARNING = (
    "WARNING! Compressed layers that can't be made again will be given up: no image is lost, but those images go out"
    " with newly compressed or plain layers, and other digests of their manifests."
)


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    def drop() -> Report:
        try:
            answer = session.engine.delete("/tare/originals")
        except ApiError as error:
            if error.status not in (404, 405):
                raise
            raise CliError("tare: this engine keeps no compressed layers (it is not Tare's, or an older one)") from None
        return Report("", answer["SpaceReclaimed"])

    return run_prune(session, flags, WARNING, drop)


COMMAND = Command("", run, (FORCE_PRUNE,), most=0)
