"""`tare volume update`: for cluster volumes, of which an engine without a swarm has none."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    volume = session.engine.get(f"/volumes/{quote(arguments[0])}")
    if not volume.get("ClusterVolume"):
        raise CliError("can only update cluster volumes")
    raise CliError("updating cluster volumes is not supported by tare")


COMMAND = Command(
    "VOLUME",
    run,
    (Flag("availability", "", "string", "Cluster volume's availability (active, pause or drain)", "active"),),
    least=1,
    most=1,
)
