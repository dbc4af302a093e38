"""`tare tag`: gives an image another name."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Values
from tare.cli.names import parse_reference
from tare.cli.session import image_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    source, target = arguments
    try:
        reference = parse_reference(target)
    except ValueError as error:
        raise CliError(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    if reference.digest:
        raise CliError("refusing to create a tag with a digest reference")
    query: dict[str, str | list[str]] = {"repo": reference.full, "tag": reference.tag or "latest"}
    session.engine.post(image_path(source, "tag"), query)
    return 0


COMMAND = Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", run, least=2, most=2)
