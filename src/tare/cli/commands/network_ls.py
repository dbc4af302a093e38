"""`tare network ls`: lists networks."""

from __future__ import annotations

from tare.cli.command import FILTER, FORMAT_TABLE, NO_TRUNC, Command, Flag, Values
from tare.cli.containers import format_labels
from tare.cli.listing import Row, natural_key, print_rows
from tare.cli.units import short_id
from tare.client.engine import format_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


COLUMNS = ("ID", "Name", "Driver", "Scope")
HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}


def created_at(text: str) -> str:
    """The API's RFC 3339 moment in the words of Go's Time.String."""
    date, _, rest = text.partition("T")
    clock = rest.rstrip("Z")
    return f"{date} {clock} +0000 UTC" if rest.endswith("Z") else text


def network_row(data: dict[str, Any], full: bool) -> Row:
    labels = data.get("Labels") or {}
    fields = {
        "ID": lambda: data["Id"] if full else short_id(data["Id"]),
        "Name": lambda: data["Name"],
        "Driver": lambda: data["Driver"],
        "Scope": lambda: data["Scope"],
        "IPv4": lambda: str(bool(data.get("EnableIPv4"))).lower(),
        "IPv6": lambda: str(bool(data.get("EnableIPv6"))).lower(),
        "Internal": lambda: str(bool(data.get("Internal"))).lower(),
        "Labels": lambda: format_labels(labels),
        "CreatedAt": lambda: created_at(data.get("Created", "")),
    }
    return Row("*network.networkContext", fields, {"Label": lambda name: labels.get(name, "")})


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    filters = [item for item in flags.items("filter") if item]
    query: dict[str, str | list[str]] = {"filters": format_filters(filters)} if filters else {}
    found = session.engine.get("/networks", query) or []
    found.sort(key=lambda network: natural_key(network["Name"]))
    rows = [network_row(network, flags.on("no-trunc")) for network in found]
    if flags.on("quiet") and not flags["format"]:
        for row in rows:
            session.out(row.text("ID"))
        return 0
    print_rows(session, rows, flags.text("format"), COLUMNS, HEADERS)
    return 0


COMMAND = Command("", run, (FILTER, FORMAT_TABLE, NO_TRUNC, Flag("quiet", "q", "bool", "Show ids only")), most=0)
