"""`tare export`: writes the file system of a container, or of a version of an image, as a tar archive."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.files import write_archive
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session
    from tare.client.engine import Response


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    write_archive(flags.text("output"), "failed to export container", lambda: ask(session, arguments[0]))
    return 0


def ask(session: Session, name: str) -> Response:
    """A container of that name; where there is none, an image: Tare's own, so another engine says as before."""
    from tare.client.errors import ApiError

    missing: ApiError | None = None
    if not any(mark in name for mark in ":@/"):  # no container is called so
        try:
            return session.engine.call("GET", container_path(name, "export"))
        except ApiError as error:
            if error.status != 404 or not error.message.startswith("No such container"):
                raise
            missing = error
    from tare.client.engine import quote

    try:
        return session.engine.call("GET", f"/tare/images/{quote(name, '/:@')}/export")
    except ApiError as error:
        if error.status == 404 and "page not found" in error.message:
            return session.engine.call("GET", container_path(name, "export"))
        raise (missing if missing is not None and error.status in (400, 404) else error) from None


COMMAND = Command(
    "CONTAINER|IMAGE[@COMMIT]",
    run,
    (Flag("output", "o", "string", "Write to this file instead of STDOUT"),),
    least=1,
    most=1,
)
