"""A container in Docker's JSON: whole, as inspect has it, and as a row of the list. Pure."""

from __future__ import annotations

from typing import Any

from tare.api import wire
from tare.api.durations_text import status_text
from tare.api.network_json import networks_json, port_list, port_map
from tare.engine.oci_spec import MASKED_PATHS, READONLY_PATHS
from tare.engine.options import ContainerConfig, HostOptions, LogOptions, RestartPolicy
from tare.engine.records import Container, ContainerDetail, ContainerState, ContainerSummary, Health, MountPoint
from tare.values.timestamps import format_rfc3339

Version = tuple[int, int]


def state_json(state: ContainerState) -> dict[str, Any]:
    """State."""
    made: dict[str, Any] = {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.paused,
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": format_rfc3339(state.started_ns),
        "FinishedAt": format_rfc3339(state.finished_ns),
    }
    if state.health is not None:
        made["Health"] = health_json(state.health)
    return made


def health_json(health: Health) -> dict[str, Any]:
    """State.Health."""
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": format_rfc3339(probe.start_ns),
                "End": format_rfc3339(probe.end_ns),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in health.log
        ],
    }


def config_json(config: ContainerConfig, version: Version) -> dict[str, Any]:
    """Config."""
    made = wire.encode(config)
    if version >= (1, 44):
        made.pop("MacAddress", None)  # it is the endpoint's since
    if made["Labels"] is None:
        made["Labels"] = {}
    return made


def shown_network_mode(host: HostOptions) -> str:
    """Docker since 26 says by name which network the default one is."""
    return "bridge" if host.network_mode in ("", "default") else host.network_mode


def host_config_json(host: HostOptions, version: Version) -> dict[str, Any]:
    """HostConfig."""
    skip = {"container_id_file"} if version >= (1, 53) and not host.container_id_file else set()
    made = wire.encode(host, skip=frozenset(skip))
    made["LogConfig"] = wire.encode(host.log_config or LogOptions(type="json-file"))
    made["LogConfig"]["Config"] = made["LogConfig"]["Config"] or {}
    made["RestartPolicy"] = wire.encode(host.restart_policy or RestartPolicy(name="no"))
    made["ConsoleSize"] = list(host.console_size or (0, 0))
    if not host.privileged and "systempaths=unconfined" not in (host.security_opt or ()):
        made["MaskedPaths"] = list(MASKED_PATHS if host.masked_paths is None else host.masked_paths)
        made["ReadonlyPaths"] = list(READONLY_PATHS if host.readonly_paths is None else host.readonly_paths)
    if made["Mounts"] is None:
        del made["Mounts"]
    if version < (1, 42):
        made.setdefault("KernelMemory", host.kernel_memory)
        made.setdefault("KernelMemoryTCP", host.kernel_memory_tcp)
    # What asks for no limit of its own is told as none, as Docker does.
    made["PidsLimit"] = host.pids_limit if (host.pids_limit or 0) > 0 else None
    made["NetworkMode"] = shown_network_mode(host)
    made["MemorySwappiness"] = None if host.memory_swappiness == -1 else host.memory_swappiness
    made["OomKillDisable"] = bool(host.oom_kill_disable)
    if version < (1, 40):
        made["PidsLimit"] = host.pids_limit or 0
    if version >= (1, 53):
        for key in ("KernelMemory", "KernelMemoryTCP"):
            made.pop(key, None)
    return made


def mount_json(mount: MountPoint) -> dict[str, Any]:
    """One of Mounts."""
    made: dict[str, Any] = {"Type": mount.type}
    if mount.name:
        made["Name"] = mount.name
    made |= {"Source": mount.source, "Destination": mount.destination}
    if mount.driver:
        made["Driver"] = mount.driver
    return made | {"Mode": mount.mode, "RW": mount.rw, "Propagation": mount.propagation}


def _network_settings(detail: ContainerDetail, version: Version) -> dict[str, Any]:
    container = detail.container
    key = f"/proc/{container.state.pid}/ns/net" if container.state.pid else ""
    made: dict[str, Any] = {
        "SandboxID": detail.sandbox_id,
        "SandboxKey": key,
        "Ports": port_map(container),
        "Networks": networks_json(container, version),
    }
    if version >= (1, 52):
        return made
    first = next((endpoint for endpoint in container.endpoints if endpoint.network == "bridge"), None)
    made |= {
        "Bridge": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.endpoint_id if first else "",
        "Gateway": first.gateway if first else "",
        "GlobalIPv6Address": first.ipv6_address if first else "",
        "GlobalIPv6PrefixLen": first.ipv6_prefix_length if first else 0,
        "IPAddress": first.ip_address if first else "",
        "IPPrefixLen": first.prefix_length if first else 0,
        "IPv6Gateway": first.ipv6_gateway if first else "",
        "MacAddress": first.mac_address if first else "",
    }
    return made


def _graph_driver(detail: ContainerDetail) -> dict[str, Any]:
    data = {
        "LowerDir": ":".join(detail.lower_dirs),
        "MergedDir": f"/proc/{detail.container.state.pid}/root" if detail.container.state.pid else "",
        "UpperDir": detail.upper_dir,
        "WorkDir": detail.work_dir,
    }
    return {"Name": "overlay2", "Data": data}


def inspect_json(detail: ContainerDetail, version: Version) -> dict[str, Any]:
    """GET /containers/{id}/json."""
    container = detail.container
    made: dict[str, Any] = {
        "Id": container.id,
        "Created": format_rfc3339(container.created_ns),
        "Path": container.path,
        "Args": list(container.args),
        "State": state_json(container.state),
        "Image": container.image_id,
        "ResolvConfPath": detail.resolv_conf_path,
        "HostnamePath": detail.hostname_path,
        "HostsPath": detail.hosts_path,
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": "overlay2",
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": detail.apparmor_profile,
        "ExecIDs": list(detail.exec_ids) or None,
        "HostConfig": host_config_json(container.host, version),
        "GraphDriver": _graph_driver(detail),
        "Mounts": [mount_json(mount) for mount in container.mounts],
        "Config": config_json(container.config, version),
        "NetworkSettings": _network_settings(detail, version),
    }
    shipping = detail.log_shipping
    if shipping is not None:  # Tare's own
        made["LogShipping"] = {
            "Driver": shipping.driver,
            "Sent": shipping.sent,
            "Dropped": shipping.dropped,
            "Error": shipping.error,
        }
    if detail.size_rw_bytes is not None:
        made["SizeRw"] = detail.size_rw_bytes
    if detail.size_root_bytes is not None:
        made["SizeRootFs"] = detail.size_root_bytes
    return made


def command_text(container: Container) -> str:
    """Path and arguments as one line, words with blanks in quotes."""
    quoted = (f"'{word}'" if " " in word else word for word in container.args)
    return " ".join((container.path, *quoted))


def summary_json(summary: ContainerSummary, version: Version, now_ns: int) -> dict[str, Any]:
    """A row of GET /containers/json."""
    container = summary.container
    made: dict[str, Any] = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": summary.image_name,
        "ImageID": container.image_id,
        "Command": command_text(container),
        "Created": container.created_ns // 10**9,
        "Ports": port_list(container),
        "Labels": dict(container.config.labels or {}),
        "State": container.state.status,
        "Status": status_text(container.state, now_ns),
        "HostConfig": {"NetworkMode": shown_network_mode(container.host)},
        "NetworkSettings": {"Networks": networks_json(container, version)},
        "Mounts": [mount_json(mount) for mount in container.mounts],
    }
    health = container.state.health
    if health is not None and version >= (1, 52):
        made["Health"] = {"Status": health.status, "FailingStreak": health.failing_streak}
    if summary.size_rw_bytes:
        made["SizeRw"] = summary.size_rw_bytes
    if summary.size_root_bytes is not None:
        made["SizeRootFs"] = summary.size_root_bytes
    return made
