"""`tare send`: takes images straight to another engine, without the layers that are there."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.far import carry_images, far_engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    *images, host = arguments
    return send(session, images, host, quiet=flags.on("quiet"), only_new=flags.on("keep-names"))


def send(session: Session, images: list[str], host: str, *, quiet: bool, only_new: bool) -> int:
    """Also `tare push HOST:IMAGE`."""
    done = carry_images(session.engine, far_engine(host), images, quiet=quiet, only_new_names=only_new)
    if not quiet:
        session.out(f"Sent {', '.join(images)} to {host}: {done.describe()}")
    return 0


COMMAND = Command(
    "IMAGE [IMAGE...] HOST",
    run,
    (
        Flag("keep-names", "", "bool", "Leave names that images have over there with these"),
        Flag("quiet", "q", "bool", "Don't show how it goes"),
    ),
    least=2,
)
