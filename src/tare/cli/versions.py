"""What the commands about versions share: asking an engine that may not know them, ids, moments, lines."""

from __future__ import annotations

from tare.cli.command import CliError
from tare.cli.units import ellipsis, format_ago, parse_rfc3339
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session

    Query = dict[str, str | list[str]]

SUBJECT_WIDTH = 72


def ask(session: Session, method: str, path: str, query: Query | None = None, body: object = None) -> Any:
    """The engine's answer; a clear word if it isn't Tare's."""
    from tare.client.engine import read_json

    try:
        return read_json(session.engine.call(method, path, query, body))
    except ApiError as error:
        if error.status != 404 or "page not found" not in error.message:
            raise
        raise CliError(f"tare: this engine can't {session.path} (it is not Tare's, or an older one)") from None


def short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def subject(version: dict[str, Any]) -> str:
    """A version in one line: its message, or the command that made it."""
    text = version["Message"] or version["CreatedBy"]
    first = text.strip().split("\n", 1)[0].replace("\t", " ")
    return ellipsis(first, SUBJECT_WIDTH)


def ago(moment: str) -> str:
    return format_ago(parse_rfc3339(moment)[0])
