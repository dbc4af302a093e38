"""`tare fetch`: takes images straight from another engine, without the layers that are here."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.far import carry_images, far_engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    host, *images = arguments
    return fetch(session, host, images, quiet=flags.on("quiet"), only_new=flags.on("keep-names"))


def fetch(session: Session, host: str, images: list[str], *, quiet: bool, only_new: bool) -> int:
    """Also `tare pull HOST:IMAGE`."""
    done = carry_images(far_engine(host), session.engine, images, quiet=quiet, only_new_names=only_new)
    if not quiet:
        session.out(f"Fetched {', '.join(images)} from {host}: {done.describe()}")
    return 0


COMMAND = Command(
    "HOST IMAGE [IMAGE...]",
    run,
    (
        Flag("keep-names", "", "bool", "Leave names that images have here with these"),
        Flag("quiet", "q", "bool", "Don't show how it goes"),
    ),
    least=2,
)
