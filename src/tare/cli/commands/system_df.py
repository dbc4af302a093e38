"""`tare system df`: shows how much disk space is used."""

from __future__ import annotations

from tare.cli import containers, imagerows
from tare.cli.command import FORMAT_TABLE, Command, Flag, Values
from tare.cli.commands import volume_ls
from tare.cli.listing import Row, print_rows
from tare.cli.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


HEADERS = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}


def usage_row(kind: str, total: int, active: int, size: float, free: float, with_share: bool = True) -> Row:
    share = f" ({int(free * 100 / size) if size else 0}%)" if with_share and size > 0 else ""
    if kind == "Images":
        share = f" ({int(free * 100 / size) if size else 0}%)"
    fields = {
        "Type": lambda: kind,
        "TotalCount": lambda: str(total),
        "Active": lambda: str(active),
        "Size": lambda: format_size(size),
        "Reclaimable": lambda: format_size(free) + share,
    }
    return Row("*formatter.diskUsageContext", fields)


def usage_rows(usage: dict[str, Any]) -> list[Row]:
    images = usage.get("Images") or []
    layers = usage.get("LayersSize") or 0
    used = sum(
        max(image["Size"] - max(image.get("SharedSize", 0), 0), 0) for image in images if image.get("Containers")
    )
    containers = usage.get("Containers") or []
    written = [item.get("SizeRw") or 0 for item in containers]
    running = [item.get("State") in ("running", "paused", "restarting") for item in containers]
    idle = sum(size for size, runs in zip(written, running, strict=True) if not runs)
    volumes = usage.get("Volumes") or []
    sizes = [max((item.get("UsageData") or {}).get("Size", 0), 0) for item in volumes]
    held = [(item.get("UsageData") or {}).get("RefCount", 0) > 0 for item in volumes]
    loose = sum(size for size, kept in zip(sizes, held, strict=True) if not kept)
    cache = usage.get("BuildCache") or []
    cached = [item.get("Size", 0) for item in cache if not item.get("Shared")]
    unused = sum(item.get("Size", 0) for item in cache if not item.get("Shared") and not item.get("InUse"))
    in_use = sum(1 for item in images if item.get("Containers", 0) > 0)
    return [
        usage_row("Images", len(images), in_use, layers, layers - used if used <= layers else 0),
        usage_row("Containers", len(containers), sum(running), sum(written), idle),
        usage_row("Local Volumes", len(volumes), sum(held), sum(sizes), loose),
        usage_row("Build Cache", len(cache), sum(1 for item in cache if item.get("InUse")), sum(cached), unused, False),
    ]


def own_rows(usage: dict[str, Any]) -> list[Row]:
    """What Tare counts and Docker doesn't."""
    own = usage.get("Tare")
    if not own:
        return []
    logs = own.get("Logs") or {}
    rows = [usage_row("Container Logs", len(logs), len(logs), sum(logs.values()), 0)]
    if "Trash" in own:
        rows.append(usage_row("Trash", own["Trash"]["Count"], 0, own["Trash"]["Size"], own["Trash"]["Size"]))
    rows.append(usage_row("Engine", 1, 1, own.get("OtherSize", 0), 0))
    return rows


LEDGER_HEADERS = {"Owner": "OWNER", "Size": "SIZE", "Disk": "ON DISK", "About": "WHAT"}
ABOUT = {
    "images": "layers of images",
    "containers": "what containers have changed",
    "volumes": "volumes",
    "logs": "containers' logs and small files",
    "trash": "removed, and can be restored",
    "recipes": "what gives layers back as the tars they were",
    "originals": "compressed layers kept as they came",
    "documents": "images' configs and manifests",
    "database": "the engine's records",
    "leftovers": "being made or deleted",
    "engine": "made ahead, and directories",
}


def ledger_rows(usage: dict[str, Any]) -> list[Row]:
    """Every byte below the data root; only Tare tells."""
    shares = (usage.get("Tare") or {}).get("Ledger") or []
    if not shares:
        return []
    total = {"Owner": "total", "Size": sum(s["Size"] for s in shares), "Disk": sum(s["Disk"] for s in shares)}
    return [_ledger_row(share) for share in [*shares, total]]


def _ledger_row(share: dict[str, Any]) -> Row:
    fields = {
        "Owner": lambda: share["Owner"],
        "Size": lambda: format_size(share["Size"]),
        "Disk": lambda: format_size(share["Disk"]),
        "About": lambda: ABOUT.get(share["Owner"], ""),
    }
    return Row("*formatter.diskUsageContext", fields)


IMAGE_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
CONTAINER_COLUMNS = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
VOLUME_COLUMNS = ("Name", "Links", "Size")
CACHE_HEADERS = ("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED")


def _image_rows(images: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for image in images:
        unique = format_size(image["Size"] - max(image.get("SharedSize", 0), 0))
        for row in imagerows.image_rows([image], False, False):
            rows.append(Row(row.kind, {**row.fields, "UniqueSize": unique.__str__}, row.methods))
    return rows


def print_verbose(session: Session, usage: dict[str, Any]) -> None:
    """Each thing's size, in Docker's four tables, and Tare's own."""
    images = _image_rows(usage.get("Images") or [])
    held = [containers.container_row(item, False) for item in usage.get("Containers") or []]
    kept = [volume_ls.volume_row(item) for item in usage.get("Volumes") or []]
    session.out("Images space usage:\n")
    print_rows(session, images, "", IMAGE_COLUMNS, imagerows.HEADERS)
    session.out("\nContainers space usage:\n")
    print_rows(session, held, "", CONTAINER_COLUMNS, containers.HEADERS)
    session.out("\nLocal Volumes space usage:\n")
    print_rows(session, kept, "", VOLUME_COLUMNS, volume_ls.HEADERS)
    cached = sum(item.get("Size", 0) for item in usage.get("BuildCache") or [] if not item.get("Shared"))
    session.out(f"\nBuild cache usage: {format_size(cached)}\n")
    session.out("   ".join(CACHE_HEADERS))
    rows = ledger_rows(usage)
    if rows:
        session.out("\nAll of the data root, by owner:\n")
        print_rows(session, rows, "", tuple(LEDGER_HEADERS), LEDGER_HEADERS)


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    usage = session.engine.get("/system/df")
    if flags.on("verbose") and not flags.text("format"):
        print_verbose(session, usage)
        return 0
    rows = usage_rows(usage) + own_rows(usage)
    print_rows(session, rows, flags.text("format"), tuple(HEADERS), HEADERS)
    return 0


COMMAND = Command("", run, (FORMAT_TABLE, Flag("verbose", "v", "bool", "Show each thing's size")), most=0)
