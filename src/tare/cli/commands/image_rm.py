"""`tare rmi`: removes images."""

from __future__ import annotations

from tare.cli.command import NO_TRASH, Command, Flag, Values
from tare.cli.session import describe, image_path
from tare.client.errors import ApiError, CannotConnect, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {}
    if flags.on("force"):
        query["force"] = "1"
    if flags.on("no-prune"):
        query["noprune"] = "1"
    if flags.on("no-trash"):
        query["trash"] = "0"
    if flags["platform"]:
        session.require("1.50", "--platform")
        query["platforms"] = [parse_platform(text) for text in flags["platform"]]
    failures, fatal = [], False
    for name in arguments:
        try:
            removed = session.engine.delete(image_path(name), query) or []
        except CannotConnect:
            raise
        except ClientError as error:
            fatal = fatal or not (isinstance(error, ApiError) and error.status == 404)
            failures.append(describe(error))
            continue
        for item in removed:
            session.out(f"Deleted: {item['Deleted']}" if item.get("Deleted") else f"Untagged: {item['Untagged']}")
    for failure in failures:
        session.err(failure)
    return 1 if failures and (fatal or not flags.on("force")) else 0


def parse_platform(text: str) -> str:
    from tare.client.jsontext import format_json

    parts = text.split("/")
    return format_json(dict(zip(("os", "architecture", "variant"), parts, strict=False)))


COMMAND = Command(
    "IMAGE [IMAGE...]",
    run,
    (
        Flag("force", "f", "bool", "Remove it even if it is used or has several names"),
        Flag("no-prune", "", "bool", "Keep parents that have no name"),
        NO_TRASH,
        Flag("platform", "", "strings", "Remove only these platforms' variants"),
    ),
    least=1,
)
