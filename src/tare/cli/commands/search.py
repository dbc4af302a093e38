"""`tare search`: looks for images in Docker Hub, or in the registry that the term begins with."""

from __future__ import annotations

from tare.cli.command import FILTER, FORMAT_TABLE, NO_TRUNC, CliError, Command, Flag, Values
from tare.cli.listing import Row, print_rows
from tare.cli.names import parse_reference
from tare.client.credentials import HUB_KEY, encode_header, registry_auth, server_key, stored_credentials
from tare.client.engine import format_filters, quote, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session

HEADERS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}
_SHOWN = 45


def search_row(data: dict[str, Any], no_trunc: bool) -> Row:
    def description() -> str:
        text = str(data.get("description") or "").replace("\n", " ").replace("\r", " ")
        return text if no_trunc or len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

    fields = {
        "Name": lambda: data.get("name", ""),
        "Description": description,
        "StarCount": lambda: str(data.get("star_count", 0)),
        "IsOfficial": lambda: "[OK]" if data.get("is_official") else "",
        "IsAutomated": lambda: "[OK]" if data.get("is_automated") else "",
    }
    return Row("*formatter.searchContext", fields)


def _list_tags(session: Session, name: str) -> int:
    try:
        reference = parse_reference(name)
    except ValueError as error:
        raise CliError(str(error)) from None
    path = f"/distribution/{quote(reference.full, '/:')}/tags"
    for tag in read_json(session.engine.call("GET", path, headers=registry_auth(reference.full))):
        session.out(f"{reference.name}:{tag}")
    return 0


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    term = arguments[0]
    if flags.on("list-tags"):
        return _list_tags(session, term)
    query: dict[str, str | list[str]] = {"term": term}
    if flags["limit"]:
        query["limit"] = str(flags["limit"])
    filters = [item for item in flags.items("filter") if item]
    if filters:
        query["filters"] = format_filters(filters)
    first, slash, _ = term.partition("/")
    far = slash and ("." in first or ":" in first or first == "localhost")
    header = encode_header(stored_credentials(server_key(first) if far else HUB_KEY))
    found = read_json(session.engine.call("GET", "/images/search", query, headers={"X-Registry-Auth": header}))
    if not isinstance(found, list):
        raise CliError("the engine doesn't answer with a list")
    found.sort(key=lambda one: -int(one.get("star_count") or 0))
    rows = [search_row(one, flags.on("no-trunc")) for one in found]
    print_rows(session, rows, flags.text("format"), ("Name", "Description", "StarCount", "IsOfficial"), HEADERS)
    return 0


COMMAND = Command(
    "TERM",
    run,
    (
        FILTER,
        FORMAT_TABLE,
        Flag("limit", "", "int", "Show this many at most"),
        Flag("list-tags", "", "bool", "List the tags of a repository by its name"),
        NO_TRUNC,
    ),
    least=1,
    most=1,
)
