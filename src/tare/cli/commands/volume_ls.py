"""`tare volume ls`: lists volumes."""

from __future__ import annotations

from tare.cli.command import FILTER, FORMAT_TABLE, Command, Flag, Values
from tare.cli.containers import format_labels
from tare.cli.listing import Row, natural_key, print_rows
from tare.cli.units import format_size
from tare.client.engine import format_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


CLUSTER_HEADERS = {
    "Name": "VOLUME NAME",
    "Group": "GROUP",
    "Driver": "DRIVER",
    "Availability": "AVAILABILITY",
    "Status": "STATUS",
}
HEADERS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Group": "GROUP",
    "Availability": "AVAILABILITY",
    "Status": "STATUS",
}


def volume_row(data: dict[str, Any]) -> Row:
    labels = data.get("Labels") or {}
    usage = data.get("UsageData") or {}
    fields = {
        "Driver": lambda: data["Driver"],
        "Name": lambda: data["Name"],
        "Scope": lambda: data.get("Scope", ""),
        "Mountpoint": lambda: data.get("Mountpoint", ""),
        "Labels": lambda: format_labels(labels),
        "Links": lambda: str(usage["RefCount"]) if "RefCount" in usage else "N/A",
        "Size": lambda: format_size(usage["Size"]) if "Size" in usage else "N/A",
        "Group": lambda: "N/A",
        "Availability": lambda: "N/A",
        "Status": lambda: "N/A",
    }
    return Row("*formatter.volumeContext", fields, {"Label": lambda name: labels.get(name, "")})


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    filters = [item for item in flags.items("filter") if item]
    query: dict[str, str | list[str]] = {"filters": format_filters(filters)} if filters else {}
    found = session.engine.get("/volumes", query).get("Volumes") or []
    rows = [volume_row(volume) for volume in sorted(found, key=lambda volume: natural_key(volume["Name"]))]
    if flags.on("quiet") and not flags["format"]:
        for row in rows:
            session.out(row.text("Name"))
        return 0
    if flags.on("cluster"):  # there are none without a swarm
        print_rows(session, [], flags.text("format"), tuple(CLUSTER_HEADERS), CLUSTER_HEADERS)
        return 0
    print_rows(session, rows, flags.text("format"), ("Driver", "Name"), HEADERS)
    return 0


COMMAND = Command(
    "",
    run,
    (Flag("cluster", "", "bool", ""), FILTER, FORMAT_TABLE, Flag("quiet", "q", "bool", "Show names only")),
    most=0,
)
