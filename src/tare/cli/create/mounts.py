"""--mount, --volume and --tmpfs: from the user's text to the API's Mounts, Binds, Volumes and Tmpfs."""

from __future__ import annotations

import os

from tare.cli.flagkinds import parse_bool, parse_bytes, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Mount = dict[str, Any]

BARE_KEYS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive")
BIND_KEYS = ("bind-propagation", "bind-nonrecursive", "bind-recursive", "bind-create-src")
VOLUME_KEYS = ("volume-subpath", "volume-nocopy", "volume-label", "volume-driver", "volume-opt")


def parse_mount(text: str) -> Mount:
    """One --mount: comma separated key=value fields."""
    fields = split_csv(text)
    if not fields:
        raise ValueError("EOF")
    mount: Mount = {"Type": "volume"}
    for field in fields:
        key, separator, value = field.partition("=")
        if not separator:
            if key not in BARE_KEYS:
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        _set_field(mount, key, value, field)
    _check_whole(mount)
    return _ordered(mount)


def _set_field(mount: Mount, key: str, value: str, field: str) -> None:
    if key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        relative = value == "." or value.startswith("./")
        mount["Source"] = os.path.abspath(value) if relative else value
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = _flag_value(key, value)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key in BIND_KEYS:
        _set_bind(mount.setdefault("BindOptions", {}), key, value, mount)
    elif key in VOLUME_KEYS:
        _set_volume(mount.setdefault("VolumeOptions", {"Labels": {}, "DriverConfig": {}}), key, value)
    elif key == "image-subpath":
        mount.setdefault("ImageOptions", {})["Subpath"] = value
    elif key in ("tmpfs-size", "tmpfs-mode"):
        _set_tmpfs(mount.setdefault("TmpfsOptions", {}), key, value)
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _flag_value(key: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _set_bind(options: Mount, key: str, value: str, mount: Mount) -> None:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options["NonRecursive"] = _flag_value(key, value)
    elif key == "bind-create-src":
        options["CreateMountpoint"] = _flag_value(key, value)
    elif value == "enabled":
        if not options:
            del mount["BindOptions"]  # it is the default and needs no options
    elif value == "disabled":
        options["NonRecursive"] = True
    elif value == "writable":
        options["ReadOnlyNonRecursive"] = True
    elif value == "readonly":
        options["ReadOnlyForceRecursive"] = True
    else:
        raise ValueError(f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")')


def _set_volume(options: Mount, key: str, value: str) -> None:
    name, _, text = value.partition("=")
    if key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-nocopy":
        options["NoCopy"] = _flag_value(key, value)
    elif key == "volume-label":
        if name:
            options["Labels"][name] = text
    elif key == "volume-driver":
        options["DriverConfig"]["Name"] = value
    elif name:
        options["DriverConfig"].setdefault("Options", {})[name] = text


def _set_tmpfs(options: Mount, key: str, value: str) -> None:
    try:
        if key == "tmpfs-size":
            options["SizeBytes"] = parse_bytes(value)
        else:
            if not value.isascii() or not value.isdigit():
                raise ValueError
            options["Mode"] = int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _check_whole(mount: Mount) -> None:
    kind = mount["Type"]
    if not kind:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for options, prefix in (("VolumeOptions", "volume"), ("BindOptions", "bind"), ("TmpfsOptions", "tmpfs")):
        if options in mount and kind != prefix:
            raise ValueError(f"cannot mix '{prefix}-*' options with mount type '{kind}'")
    if "ImageOptions" in mount and kind != "image":
        raise ValueError(f"cannot mix 'image-*' options with mount type '{kind}'")
    bind = mount.get("BindOptions", {})
    if bind.get("ReadOnlyForceRecursive"):
        if not mount.get("ReadOnly"):
            raise ValueError("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
        if bind.get("Propagation") != "rprivate":
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
            )
    if bind.get("ReadOnlyNonRecursive") and not mount.get("ReadOnly"):
        raise ValueError("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")


def _ordered(mount: Mount) -> Mount:
    """Leave out what Go's encoder would: empty values of fields marked omitempty."""
    kept = {key: value for key, value in mount.items() if value not in ("", False)}
    for name in ("BindOptions", "TmpfsOptions", "ImageOptions"):
        if name in kept:
            kept[name] = {key: value for key, value in kept[name].items() if value not in ("", False, 0)}
    if "VolumeOptions" in kept:
        options = {key: value for key, value in kept["VolumeOptions"].items() if value not in ("", False, {})}
        options["DriverConfig"] = {key: value for key, value in kept["VolumeOptions"]["DriverConfig"].items() if value}
        kept["VolumeOptions"] = options
    return kept


def check_volume(text: str) -> str:
    """One --volume as given, but with a relative source made absolute."""
    source, separator, rest = text.partition(":")
    if separator and (source in (".", "..") or source.startswith(("./", "../"))):
        return f"{os.path.abspath(source)}:{rest}"
    return text


def split_volumes(items: list[str]) -> tuple[list[str] | None, dict[str, object]]:
    """(Binds, Volumes): those with a source, and those that only name a place inside the container."""
    binds: list[str] = []
    volumes: dict[str, object] = {}
    for item in dict.fromkeys(items):
        parts = item.split(":")
        if len(parts[0]) == 1 and parts[0].isalpha() and len(parts) > 1:
            parts = [f"{parts[0]}:{parts[1]}", *parts[2:]]  # Docker's reading of c:/path, whatever the system
        if not item:
            raise ValueError("invalid empty volume spec")
        if len(parts) > 3:
            raise ValueError(f"invalid spec: {item}: too many colons")
        if any(not part for part in parts):
            raise ValueError(f"invalid spec: {item}: empty section between colons")
        if len(parts) == 1:
            volumes[item] = {}
        else:
            binds.append(item)
    return binds or None, volumes


def split_tmpfs(items: list[str]) -> dict[str, str]:
    places = {}
    for item in items:
        place, _, options = item.partition(":")
        places[place] = options
    return places
