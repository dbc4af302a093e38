"""What `tare ps` shows of a container: the fields that --format knows and how each is put."""

from __future__ import annotations

from tare.cli.listing import Row
from tare.cli.units import ellipsis, format_ago, format_local, format_size, go_quote, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
HEADERS = {
    "ID": "CONTAINER ID",
    "Names": "NAMES",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Platform": "PLATFORM",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
}
COMMAND_WIDTH = 20
MOUNT_WIDTH = 15


def container_row(data: dict[str, Any], full: bool) -> Row:
    fields = {
        "ID": lambda: data["Id"] if full else short_id(data["Id"]),
        "Names": lambda: _names(data, full),
        "Image": lambda: _image(data, full),
        "Command": lambda: go_quote(data["Command"] if full else ellipsis(data["Command"], COMMAND_WIDTH)),
        "CreatedAt": lambda: format_local(data["Created"]),
        "RunningFor": lambda: format_ago(data["Created"]),
        "Platform": lambda: data.get("ImageManifestDescriptor", {}).get("platform"),
        "Ports": lambda: format_ports(data.get("Ports") or []),
        "State": lambda: data.get("State", ""),
        "Status": lambda: data.get("Status", ""),
        "Size": lambda: _size(data),
        "Labels": lambda: format_labels(data.get("Labels") or {}),
        "Mounts": lambda: _mounts(data, full),
        "LocalVolumes": lambda: str(sum(1 for mount in data.get("Mounts") or [] if mount.get("Driver") == "local")),
        "Networks": lambda: ",".join(sorted((data.get("NetworkSettings") or {}).get("Networks") or {})),
    }
    labels = data.get("Labels") or {}
    return Row("*formatter.ContainerContext", fields, {"Label": lambda name: labels.get(name, "")})


def _names(data: dict[str, Any], full: bool) -> str:
    names = [name.removeprefix("/") for name in data.get("Names") or []]
    if not full:
        names = [name for name in names if "/" not in name]  # links look like other/alias
    return ",".join(names)


def _image(data: dict[str, Any], full: bool) -> str:
    image: str = data.get("Image", "")
    if not image:
        return "<no image>"
    if full:
        return image
    if short_id(data.get("ImageID", "")) == short_id(image):
        return short_id(image)
    name, at, _digest = image.partition("@")
    return name if at else image


def _size(data: dict[str, Any]) -> str:
    written = format_size(data.get("SizeRw") or 0, 3)
    if data.get("SizeRootFs"):
        return f"{written} (virtual {format_size(data['SizeRootFs'], 3)})"
    return written


def _mounts(data: dict[str, Any], full: bool) -> str:
    names = [mount.get("Name") or mount.get("Source", "") for mount in data.get("Mounts") or []]
    return ",".join(names if full else [ellipsis(name, MOUNT_WIDTH) for name in names])


def format_labels(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels))


def format_ports(ports: list[dict[str, Any]]) -> str:
    """Published and exposed ports; neighbours with the same address become a range."""
    groups: dict[tuple[str, str], list[int]] = {}  # (address or "", protocol) -> first and last of the open range
    ranges: list[str] = []
    single: list[str] = []
    ordered = sorted(ports, key=lambda port: (port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0)))
    ordered.sort(key=lambda port: (port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]))
    for port in ordered:
        private, public, address, kind = (
            port["PrivatePort"],
            port.get("PublicPort", 0),
            port.get("IP", ""),
            port["Type"],
        )
        if address and public != private:
            single.append(f"{_join(address, str(public))}->{private}/{kind}")
            continue
        key = (address, kind)
        span = groups.get(key)
        if span is None:
            groups[key] = [private, private]
        elif private == span[1] + 1:
            span[1] = private
        else:
            ranges.append(_span(key, span))
            groups[key] = [private, private]
    for key in sorted(groups, key=lambda key: (key[0] + "/" + key[1]) if key[0] else key[1]):
        ranges.append(_span(key, groups[key]))
    return ", ".join(ranges + single)


def _join(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _span(key: tuple[str, str], span: list[int]) -> str:
    address, kind = key
    text = str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"
    return f"{_join(address, text)}->{text}/{kind}" if address else f"{text}/{kind}"
