"""Images in Docker's JSON: rows of the list, inspect, history. Pure: records in, dictionaries out."""

from __future__ import annotations

from typing import Any

from tare.engine.image_verbs import HistoryEntry, Image, ImageSummary, Removed
from tare.values.timestamps import format_instant, format_rfc3339, unix_seconds

Version = tuple[int, int]


def summary_json(summary: ImageSummary, version: Version) -> dict[str, Any]:
    """A row of GET /images/json."""
    image = summary.image
    tags, digests = list(image.repo_tags), list(image.repo_digests)
    if version < (1, 43) and not tags and not digests:
        tags, digests = ["<none>:<none>"], ["<none>@<none>"]
    made: dict[str, Any] = {
        "Containers": summary.containers if version >= (1, 51) else -1,
        "Created": unix_seconds(image.created_ns),
        "Id": image.id,
        "Labels": dict(image.config.labels) or None,
        "ParentId": image.parent_id or "",
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": -1 if summary.shared_bytes is None else summary.shared_bytes,
        "Size": image.size_bytes,
    }
    if version < (1, 44):
        made["VirtualSize"] = image.size_bytes
    return made


def _healthcheck(image: Image) -> dict[str, Any] | None:
    check = image.config.healthcheck
    if check is None:
        return None
    made: dict[str, Any] = {"Test": list(check.test)}
    for key, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ):
        if value:
            made[key] = value
    return made


_CONTAINER_FIELDS: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}
_NOTHING_SET = dict.fromkeys(("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"))


def config_json(image: Image, version: Version) -> dict[str, Any]:
    """Config. Until 1.50 it also had a container's fields, which never meant anything in an image; since 1.52 what is
    not set is left out."""
    config = image.config
    legacy = version < (1, 50)
    made: dict[str, Any] = dict(_CONTAINER_FIELDS) if legacy else {}
    made |= {
        "User": config.user,
        "Env": list(config.env) or None,
        "Cmd": list(config.cmd) if config.cmd else None,
        "Volumes": dict(config.volumes) or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) if config.entrypoint else None,
        "OnBuild": list(config.on_build) or None,
        "Labels": dict(config.labels) or None,
    }
    if config.exposed_ports:
        made["ExposedPorts"] = dict(config.exposed_ports)
    if config.stop_signal:
        made["StopSignal"] = config.stop_signal
    healthcheck = _healthcheck(image)
    if healthcheck is not None:
        made["Healthcheck"] = healthcheck
    if config.shell:
        made["Shell"] = list(config.shell)
    if config.args_escaped:
        made["ArgsEscaped"] = True
    if version >= (1, 52):
        made = {key: value for key, value in made.items() if value not in (None, "")}
    return made


def _container_config(image: Image, version: Version) -> dict[str, Any]:
    """ContainerConfig: that of the container which was committed; nothing is set where none was."""
    origin = image.spec.container_config
    if origin is None:
        return {**_CONTAINER_FIELDS, "User": "", "WorkingDir": "", **_NOTHING_SET}
    return {**config_json(image, version), "Hostname": origin.hostname, "Image": origin.image}


def inspect_json(image: Image, version: Version, *, container_config: bool = False) -> dict[str, Any]:
    """GET /images/{name}/json. container_config: with that field whatever the version."""
    spec = image.spec
    made: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Comment": spec.history[-1].comment if spec.history else "",
        "Created": format_instant(image.created_ns),
        "Author": spec.author,
        "Config": config_json(image, version),
        "Architecture": spec.architecture,
        "Os": spec.os,
        "Size": image.size_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": {}},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": format_rfc3339(image.last_tagged_ns)},
    }
    if spec.variant:
        made["Variant"] = spec.variant
    if version < (1, 52) or image.parent_id:
        made["Parent"] = image.parent_id or ""
        made["DockerVersion"] = ""
    if version < (1, 45):
        made["Container"] = spec.container
    if version < (1, 45) or container_config:
        made["ContainerConfig"] = _container_config(image, version)
    if version < (1, 44):
        made["VirtualSize"] = image.size_bytes
    return made


def history_json(entry: HistoryEntry) -> dict[str, Any]:
    """One step of GET /images/{name}/history."""
    return {
        "Comment": entry.comment,
        "Created": unix_seconds(entry.created_ns),
        "CreatedBy": entry.created_by,
        "Id": entry.id,
        "Size": entry.size_bytes,
        "Tags": list(entry.tags) or None,
    }


def removed_json(removed: Removed) -> dict[str, str]:
    """One line of what a removal did."""
    return {"Untagged" if removed.kind == "untagged" else "Deleted": removed.value}
