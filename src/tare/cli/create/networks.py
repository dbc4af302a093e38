"""--network and its companions (--ip, --network-alias, --link …): the API's NetworkMode and EndpointsConfig."""

from __future__ import annotations

from tare.cli.flagkinds import split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.command import Values

    Attachment = dict[str, Any]

EMPTY_ENDPOINT: dict[str, object] = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "MacAddress": "",
    "DriverOpts": None,
    "GwPriority": 0,
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}


def _is_long_form(text: str) -> bool:
    """Somewhere in it a word character stands on both sides of an equals sign."""

    def is_word(letter: str) -> bool:
        return letter.isascii() and (letter.isalnum() or letter == "_")

    return any(
        letter == "=" and is_word(text[at - 1 : at] or " ") and is_word(text[at + 1 : at + 2] or " ")
        for at, letter in enumerate(text)
        if at
    )


def parse_network(text: str) -> Attachment:
    """One --network: a name, or name=…,alias=…,ip=…,ip6=…,mac-address=…,link-local-ip=…,driver-opt=…,rate=…"""
    if not _is_long_form(text):
        return {"target": text}
    found: Attachment = {"target": "", "aliases": [], "driver": {}, "local": [], "advanced": True}
    for field in split_csv(text):
        key, separator, value = field.partition("=")
        if not separator or not key:
            raise ValueError(f"invalid field {field}")
        _set_field(found, key.strip().lower(), value.strip())
    if not found["target"]:
        raise ValueError("network name/id is not specified")
    return found


def _set_field(found: Attachment, key: str, value: str) -> None:
    if key == "name":
        found["target"] = value
    elif key == "alias":
        found["aliases"].append(value)
    elif key in ("ip", "ip6"):
        found[key] = value
    elif key == "mac-address":
        found["mac"] = check_mac(value)
    elif key == "link-local-ip":
        found["local"].append(value)
    elif key == "driver-opt":
        name, separator, option = value.partition("=")
        if not separator or not name:
            raise ValueError("invalid key value pair format in driver options")
        found["driver"][name.strip().lower()] = option.strip()
    elif key in ("rate", "burst", "delay", "jitter", "loss"):
        found["driver"][f"tare.network.{key}"] = value
    elif key == "gw-priority":
        try:
            found["priority"] = int(value)
        except ValueError:
            raise ValueError(f"invalid gw-priority: {value}") from None
    else:
        raise ValueError(f"invalid field key {key}")


def check_mac(text: str) -> str:
    separator = "-" if "-" in text else ":"
    parts = text.strip().split(separator)
    if len(parts) != 6 or any(len(part) != 2 or set(part.lower()) - set("0123456789abcdef") for part in parts):
        raise ValueError(f"{text} is not a valid mac address")
    return text


def is_user_defined(name: str) -> bool:
    return name not in ("default", "bridge", "host", "none") and not name.startswith("container:")


def network_mode(flags: Values) -> str:
    attachments = flags["network"]
    return attachments[0]["target"] if attachments else "default"


def endpoints(flags: Values) -> dict[str, Any]:
    """EndpointsConfig: one per --network; the companions belong to the first."""
    attachments = [dict(item) for item in flags["network"]] or [{"target": "default"}]
    found: dict[str, Any] = {}
    kinds = set()
    for number, item in enumerate(attachments):
        target = item["target"]
        kinds.add(is_user_defined(target))
        if number == 0:
            _apply_companions(item, flags)
        if not target.strip():
            raise ValueError("no name set for network")
        if item.get("aliases") and not is_user_defined(target):
            raise ValueError("network-scoped aliases are only supported for user-defined networks")
        if target in found:
            raise ValueError(f'network "{target}" is specified multiple times')
        found[target] = endpoint(item)
        if len(flags["network"]) == 1 and found[target] == EMPTY_ENDPOINT:
            del found[target]  # a network with nothing to say about it stands in NetworkMode only
    if len(kinds) > 1:
        raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return found


def _apply_companions(item: Attachment, flags: Values) -> None:
    for flag, key, what in (
        ("network-alias", "aliases", "--network-alias and per-network alias"),
        ("link", "links", "--link and per-network links"),
        ("ip", "ip", "--ip and per-network IPv4 address"),
        ("ip6", "ip6", "--ip6 and per-network IPv6 address"),
        ("link-local-ip", "local", "--link-local-ip and per-network link-local IP addresses"),
        ("mac-address", "mac", "--mac-address and per-network MAC address"),
    ):
        value = flags[flag]
        if not value:
            continue
        if item.get(key):
            raise ValueError(f"conflicting options: cannot specify both {what}")
        if key == "mac":
            value = check_mac(value)
        if key == "links" and not is_user_defined(item["target"]):
            continue  # links of the default bridge are in HostConfig.Links only
        item[key] = value


def endpoint(item: Attachment) -> dict[str, Any]:
    """The API's form of one attachment."""
    endpoint = dict(EMPTY_ENDPOINT)
    endpoint["Aliases"] = item.get("aliases") or None
    endpoint["Links"] = item.get("links") or None
    endpoint["DriverOpts"] = item.get("driver") or None
    endpoint["MacAddress"] = item.get("mac", "")
    endpoint["GwPriority"] = item.get("priority", 0)
    config: dict[str, Any] = {}
    if item.get("ip"):
        config["IPv4Address"] = item["ip"]
    if item.get("ip6"):
        config["IPv6Address"] = item["ip6"]
    if item.get("local"):
        config["LinkLocalIPs"] = item["local"]
    endpoint["IPAMConfig"] = config or None
    return endpoint
