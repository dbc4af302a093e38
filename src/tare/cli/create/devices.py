"""--device and --gpus: the API's Devices and DeviceRequests."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _is_mode(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and not set(text) - set("rwm")


def parse_device(text: str) -> dict[str, str]:
    """HOST[:CONTAINER][:rwm]"""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"bad format for path: {text}")
    host = inside = parts[0]
    access = "rwm"
    if len(parts) == 3:
        inside, access = parts[1] or host, parts[2]
        if not _is_mode(access):
            raise ValueError(f"bad mode specified: {access}")
    elif len(parts) == 2:
        if _is_mode(parts[1]):
            access = parts[1]
        else:
            inside = parts[1] or host
    if not inside.startswith("/"):
        raise ValueError(f"{inside} is not an absolute path")
    return {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access}


def device_requests(gpus: list[dict[str, Any]], cdi: list[str]) -> list[dict[str, Any]] | None:
    requests = list(gpus)
    if cdi:
        requests.append({"Driver": "cdi", "Count": 0, "DeviceIDs": cdi, "Capabilities": None, "Options": None})
    return requests or None
