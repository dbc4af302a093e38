"""`tare system df`: shows how much disk space is used."""

from __future__ import annotations

from tare.cli.command import FORMAT_TABLE, CliError, Command, Flag, Values
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


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    if flags.on("verbose"):
        raise CliError("tare: 'system df --verbose' is not implemented yet")
    rows = usage_rows(session.engine.get("/system/df"))
    print_rows(session, rows, flags.text("format"), tuple(HEADERS), HEADERS)
    return 0


COMMAND = Command(
    "", run, (FORMAT_TABLE, Flag("verbose", "v", "bool", "Show each thing's size (not there yet)")), most=0
)
