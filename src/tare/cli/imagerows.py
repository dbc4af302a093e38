"""What `tare images` shows of an image: one row for each name."""

from __future__ import annotations

from tare.cli.listing import Row
from tare.cli.units import format_ago, format_local, format_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NONE = "<none>"
HEADERS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}


def image_rows(images: list[dict[str, Any]], full: bool, digests: bool) -> list[Row]:
    return [_row(image, name, full) for image in images for name in _names(image, digests)]


def _names(image: dict[str, Any], with_digests: bool) -> list[tuple[str, str, str]]:
    """(repository, tag, digest) triples."""
    tags: dict[str, list[str]] = {}
    digests: dict[str, list[str]] = {}
    for text in image.get("RepoTags") or []:
        repository, _, tag = text.rpartition(":")
        if text != f"{NONE}:{NONE}":
            tags.setdefault(repository, []).append(tag)
    for text in image.get("RepoDigests") or []:
        repository, _, digest = text.partition("@")
        if text != f"{NONE}@{NONE}":
            digests.setdefault(repository, []).append(digest)
    found = []
    for repository, known in tags.items():
        own = digests.pop(repository, [])
        shown = own if with_digests and own else [NONE]
        found += [(repository, tag, digest) for digest in shown for tag in known]
    for repository, own in digests.items():
        found += [(repository, NONE, digest) for digest in (own if with_digests else own[:1])]
    return found or [(NONE, NONE, NONE)]


def _row(image: dict[str, Any], name: tuple[str, str, str], full: bool) -> Row:
    repository, tag, digest = name

    def size_or_na(key: str) -> str:
        value = image.get(key, -1)
        return "N/A" if value is None or value < 0 else format_size(value)

    fields = {
        "ID": lambda: image["Id"] if full else short_id(image["Id"]),
        "Repository": lambda: repository,
        "Tag": lambda: tag,
        "Digest": lambda: digest,
        "CreatedSince": lambda: format_ago(image["Created"]) if image["Created"] > 0 else "N/A",
        "CreatedAt": lambda: format_local(image["Created"]),
        "Size": lambda: format_size(image["Size"], 3),
        "VirtualSize": lambda: format_size(image.get("VirtualSize") or image["Size"]),
        "SharedSize": lambda: size_or_na("SharedSize"),
        "UniqueSize": lambda: "N/A",
        "Containers": lambda: "N/A" if image.get("Containers", -1) < 0 else str(image["Containers"]),
    }
    return Row("*formatter.imageContext", fields)
