"""The engine's JSON into records. Takes null and absence for empty: engines differ in that. No I/O."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tare.client.errors import ProtocolError
from tare.client.jsontext import parse_json
from tare.sdk.errors import EngineFailed
from tare.sdk.records import (
    Attachment,
    Change,
    ContainerDetails,
    ContainerSummary,
    EngineInfo,
    Event,
    Finding,
    Image,
    MountPoint,
    Network,
    Packed,
    PathInfo,
    Progress,
    PublishedPort,
    Stats,
    Trashed,
    Version,
    Volume,
)

Document = Mapping[str, Any]
_NEVER = "0001-01-01"
_CHANGES = {0: "modified", 1: "added", 2: "deleted"}
_GO_DIRECTORY, _GO_PERMISSIONS = 1 << 31, 0o777


def moment(text: str) -> datetime:
    """An RFC 3339 time; what is finer than a microsecond is dropped."""
    return datetime.fromisoformat(text)


def moment_or_none(text: str | None) -> datetime | None:
    return None if not text or text.startswith(_NEVER) else moment(text)


def seconds(value: float) -> datetime:
    return datetime.fromtimestamp(value, UTC)


def container_summary(document: Document) -> ContainerSummary:
    names = document.get("Names") or [""]
    return ContainerSummary(
        id=document["Id"],
        name=min(names, key=lambda name: name.count("/")).removeprefix("/"),
        image=document.get("Image", ""),
        image_id=document.get("ImageID", ""),
        command=document.get("Command", ""),
        created=seconds(document["Created"]),
        state=document.get("State", ""),
        status=document.get("Status", ""),
        ports=tuple(
            PublishedPort(port["PrivatePort"], port["Type"], port.get("IP", ""), port.get("PublicPort", 0))
            for port in document.get("Ports") or ()
        ),
        labels=document.get("Labels") or {},
        raw=document,
    )


def published_ports(ports: Mapping[str, Any] | None) -> tuple[PublishedPort, ...]:
    """`NetworkSettings.Ports`: {"80/tcp": [{"HostIp", "HostPort"}] or null}"""
    found = []
    for name, bindings in (ports or {}).items():
        number, _, protocol = name.partition("/")
        for binding in bindings or [{}]:
            host_port = int(binding.get("HostPort") or 0)
            found.append(PublishedPort(int(number), protocol or "tcp", binding.get("HostIp", ""), host_port))
    return tuple(found)


def container_details(document: Document) -> ContainerDetails:
    state, config = document["State"], document["Config"]
    settings = document.get("NetworkSettings") or {}
    return ContainerDetails(
        id=document["Id"],
        name=document["Name"].removeprefix("/"),
        image=config.get("Image", ""),
        image_id=document["Image"],
        created=moment(document["Created"]),
        state=state["Status"],
        running=state["Running"],
        paused=state["Paused"],
        pid=state["Pid"],
        exit_code=state["ExitCode"],
        oom_killed=state.get("OOMKilled", False),
        error=state.get("Error", ""),
        started=moment_or_none(state.get("StartedAt")),
        finished=moment_or_none(state.get("FinishedAt")),
        health=(state.get("Health") or {}).get("Status", ""),
        restart_count=document.get("RestartCount", 0),
        command=(document.get("Path", ""), *(document.get("Args") or ())),
        environment=pairs(config.get("Env")),
        labels=config.get("Labels") or {},
        tty=bool(config.get("Tty")),
        ports=published_ports(settings.get("Ports")),
        networks={name: attachment(name, place) for name, place in (settings.get("Networks") or {}).items()},
        mounts=tuple(
            MountPoint(m["Type"], m.get("Source", ""), m["Destination"], bool(m.get("RW")), m.get("Name", ""))
            for m in document.get("Mounts") or ()
        ),
        raw=document,
    )


def attachment(name: str, place: Document) -> Attachment:
    return Attachment(
        name,
        place.get("IPAddress", ""),
        place.get("Gateway", ""),
        place.get("MacAddress", ""),
        tuple(place.get("Aliases") or ()),
    )


def pairs(items: Iterable[str] | None) -> dict[str, str]:
    """["A=1"] as {"A": "1"}"""
    return {name: value for name, _, value in (item.partition("=") for item in items or ())}


def image_summary(document: Document) -> Image:
    return Image(
        id=document["Id"],
        tags=tuple(tag for tag in document.get("RepoTags") or () if tag != "<none>:<none>"),
        digests=tuple(digest for digest in document.get("RepoDigests") or () if digest != "<none>@<none>"),
        created=seconds(document["Created"]),
        size_bytes=document.get("Size", 0),
        labels=document.get("Labels") or {},
        raw=document,
    )


def image_details(document: Document) -> Image:
    return Image(
        id=document["Id"],
        tags=tuple(document.get("RepoTags") or ()),
        digests=tuple(document.get("RepoDigests") or ()),
        created=moment_or_none(document.get("Created")),
        size_bytes=document.get("Size", 0),
        labels=(document.get("Config") or {}).get("Labels") or {},
        architecture=document.get("Architecture", ""),
        os=document.get("Os", ""),
        raw=document,
    )


def progress(document: Document) -> Progress:
    """Raises ProtocolError for a step that failed: the status line had gone out before it could."""
    failure = document.get("errorDetail") or {}
    if failure or document.get("error"):
        raise ProtocolError(failure.get("message") or document["error"])
    detail = document.get("progressDetail") or {}
    text = document.get("status") or document.get("stream") or ""
    return Progress(text, document.get("id", ""), detail.get("current", 0), detail.get("total", 0), document)


def event(document: Document) -> Event:
    actor = document.get("Actor") or {}
    nanoseconds = document.get("timeNano") or document["time"] * 1_000_000_000
    return Event(
        time=seconds(nanoseconds / 1_000_000_000),
        kind=document.get("Type", ""),
        action=document.get("Action", ""),
        id=actor.get("ID", ""),
        attributes=actor.get("Attributes") or {},
        raw=document,
    )


def stats(document: Document) -> Stats:
    cpu, before = document.get("cpu_stats") or {}, document.get("precpu_stats") or {}
    memory = document.get("memory_stats") or {}
    networks = (document.get("networks") or {}).values()
    blocks = (document.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    return Stats(
        read=moment(document["read"]),
        cpu_percent=_cpu_percent(cpu, before),
        cpu_total_ns=(cpu.get("cpu_usage") or {}).get("total_usage", 0),
        memory_bytes=_used_memory(memory),
        memory_limit_bytes=memory.get("limit", 0),
        network_received_bytes=sum(one.get("rx_bytes", 0) for one in networks),
        network_sent_bytes=sum(one.get("tx_bytes", 0) for one in networks),
        block_read_bytes=sum(one["value"] for one in blocks if one["op"].lower() == "read"),
        block_written_bytes=sum(one["value"] for one in blocks if one["op"].lower() == "write"),
        processes=(document.get("pids_stats") or {}).get("current", 0) or 0,
        raw=document,
    )


def _cpu_percent(now: Document, before: Document) -> float:
    used = _usage(now) - _usage(before)
    passed = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    if used <= 0 or passed <= 0 or not before.get("system_cpu_usage"):
        return 0.0
    cpus = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or [0])
    return float(used / passed * cpus * 100)


def _usage(cpu: Document) -> int:
    return int((cpu.get("cpu_usage") or {}).get("total_usage") or 0)


def _used_memory(memory: Document) -> int:
    """Without the page cache that can go at any time: total_inactive_file (cgroup v1), inactive_file (v2)."""
    usage, detail = int(memory.get("usage") or 0), memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        if 0 < detail.get(name, 0) < usage:
            return usage - int(detail[name])
    return usage


def changes(document: list[Document] | None) -> list[Change]:
    return [Change(item["Path"], _CHANGES[item["Kind"]]) for item in document or ()]


def path_info(header: str) -> PathInfo:
    """X-Docker-Container-Path-Stat: JSON in base64; mode is Go's fs.FileMode."""
    try:
        found = parse_json(binascii.a2b_base64(header))
        return PathInfo(
            name=found["name"],
            size_bytes=found["size"],
            mode=found["mode"] & _GO_PERMISSIONS,
            modified=moment(found["mtime"]),
            is_directory=bool(found["mode"] & _GO_DIRECTORY),
            link_target=found.get("linkTarget", ""),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"the engine's description of a path can't be read: {error}") from error


def trashed(document: Document) -> Trashed:
    return Trashed(
        kind=document["Kind"],
        id=document["Id"],
        name=document["Name"],
        names=tuple(document["Names"]),
        removed=moment(document["Removed"]),
        until=moment(document["Until"]),
        size_bytes=document["Size"],
        raw=document,
    )


def volume(document: Document) -> Volume:
    return Volume(
        name=document["Name"],
        driver=document.get("Driver", ""),
        mountpoint=document.get("Mountpoint", ""),
        labels=document.get("Labels") or {},
        options=document.get("Options") or {},
        raw=document,
    )


def network(document: Document) -> Network:
    addresses = (document.get("IPAM") or {}).get("Config") or ()
    return Network(
        id=document["Id"],
        name=document["Name"],
        driver=document.get("Driver", ""),
        internal=bool(document.get("Internal")),
        subnets=tuple(item["Subnet"] for item in addresses if item.get("Subnet")),
        labels=document.get("Labels") or {},
        raw=document,
    )


def version(document: Document) -> Version:
    return Version(
        version=document.get("Version", ""),
        api_version=document.get("ApiVersion", ""),
        minimum_api_version=document.get("MinAPIVersion", ""),
        os=document.get("Os", ""),
        architecture=document.get("Arch", ""),
        kernel=document.get("KernelVersion", ""),
        raw=document,
    )


def engine_info(document: Document) -> EngineInfo:
    return EngineInfo(
        name=document.get("Name", ""),
        version=document.get("ServerVersion", ""),
        containers=document.get("Containers", 0),
        running=document.get("ContainersRunning", 0),
        paused=document.get("ContainersPaused", 0),
        stopped=document.get("ContainersStopped", 0),
        images=document.get("Images", 0),
        cpus=document.get("NCPU", 0),
        memory_bytes=document.get("MemTotal", 0),
        storage_driver=document.get("Driver", ""),
        raw=document,
    )


def findings(body: bytes) -> list[Finding]:
    """The lines of a check. Raises EngineFailed if the engine couldn't, ProtocolError if it broke off."""
    lines = [parse_json(line.decode()) for line in body.splitlines() if line]
    for line in lines:
        if "Error" in line:
            raise EngineFailed(500, line["Error"])
    if not lines or "Done" not in lines[-1]:
        raise ProtocolError("the check broke off")
    found = [line["Finding"] for line in lines if "Finding" in line]
    return [
        Finding(
            kind=one["Kind"],
            subject=one["Subject"],
            problem=one["Problem"],
            remedy=one["Remedy"],
            repaired=one["Repaired"],
            raw=one,
        )
        for one in found
    ]


def packed(body: bytes, usage: Document) -> Packed:
    """What was packed, and what is now."""
    done = parse_json(body.decode())
    return Packed(
        files=done["Files"],
        freed_bytes=done["SpaceReclaimed"],
        waiting=done["Waiting"],
        packed_files=usage["Files"],
        packed_bytes=usage["Size"],
        pack_bytes=usage["Packs"],
        raw={**usage, **done},
    )
