"""`tare images --tree`: each image once, with all its names, and its platforms below it."""

from __future__ import annotations

from tare.cli.table import format_table
from tare.cli.units import format_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session

COLUMNS = ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"]


def print_tree(session: Session, images: list[dict[str, Any]]) -> None:
    used = {item["ImageID"] for item in session.engine.get("/containers/json", {"all": "1"}) or []}
    lines = [COLUMNS]
    for image in images:
        lines += image_lines(image, image["Id"] in used)
    session.out(format_table(lines))


def image_lines(image: dict[str, Any], used: bool) -> list[list[str]]:
    """A line for each name, the last with the figures; then one for each platform that the engine tells of."""
    names = [name for name in image.get("RepoTags") or [] if name != "<none>:<none>"] or ["<untagged>"]
    platforms = [item for item in image.get("Manifests") or [] if item.get("Kind") == "image"]
    used = used or any((item.get("ImageData") or {}).get("Containers") for item in platforms)
    content = sum(((item.get("Size") or {}).get("Content") or 0) for item in platforms)
    lines = [[name, "", "", "", ""] for name in names[:-1]]
    size = format_size(image["Size"], 3)
    lines.append([names[-1], short_id(image["Id"]), size, format_size(content) if content else "-", mark(used)])
    for number, item in enumerate(platforms):
        lines.append(platform_line(item, number == len(platforms) - 1))
    return lines


def platform_line(item: dict[str, Any], last: bool) -> list[str]:
    data, size = item.get("ImageData") or {}, item.get("Size") or {}
    parts = data.get("Platform") or {}
    words = [parts.get(key) for key in ("os", "architecture", "variant")]
    name = "/".join(word for word in words if word)
    return [
        ("└─ " if last else "├─ ") + name,
        short_id(item.get("ID") or ""),
        format_size(size.get("Total") or 0, 3),
        format_size(size.get("Content") or 0),
        mark(bool(data.get("Containers"))),
    ]


def mark(used: bool) -> str:
    return "yes" if used else ""
