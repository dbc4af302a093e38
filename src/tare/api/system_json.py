"""Version and info in Docker's JSON. Pure: records in, dictionaries out."""

from __future__ import annotations

from typing import Any

from tare.engine.records import EngineInfo, EngineVersion
from tare.values.timestamps import format_rfc3339

INDEX_SERVER = "https://index.docker.io/v1/"


def version_json(version: EngineVersion, maximum: str, minimum: str) -> dict[str, Any]:
    """GET /version. maximum, minimum: the API versions that this room speaks."""
    details = {
        "ApiVersion": maximum,
        "Arch": version.arch,
        "BuildTime": version.build_time,
        "Experimental": "false",
        "GitCommit": version.git_commit,
        "KernelVersion": version.kernel_version,
        "MinAPIVersion": minimum,
        "Os": version.os,
        "GoVersion": f"none (Python {version.python_version})",
    }
    return {
        "Platform": {"Name": "Tare"},
        "Components": [{"Name": "Engine", "Version": version.version, "Details": details}],
        "Version": version.version,
        "ApiVersion": maximum,
        "MinAPIVersion": minimum,
        "GitCommit": version.git_commit,
        "GoVersion": f"none (Python {version.python_version})",
        "Os": version.os,
        "Arch": version.arch,
        "KernelVersion": version.kernel_version,
        "BuildTime": version.build_time,
    }


def info_json(info: EngineInfo, version: tuple[int, int]) -> dict[str, Any]:
    """GET /info."""
    made = {
        "ID": info.id,
        **_stock(info),
        **_what_can_be_limited(info),
        **_process(info),
        **_host(info),
        "IndexServerAddress": INDEX_SERVER,
        "RegistryConfig": _registry_json(info, version),
        "GenericResources": None,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": list(info.labels),
        "ExperimentalBuild": False,
        "ServerVersion": info.server_version,
        "Runtimes": {name: {"path": path} for name, path in info.runtimes.items()},
        "DefaultRuntime": info.default_runtime,
        "Swarm": _NO_SWARM,
        "LiveRestoreEnabled": info.live_restore,
        "Isolation": "",
        "InitBinary": info.init_binary,
        "ContainerdCommit": _commit(version),
        "RuncCommit": _commit(version),
        "InitCommit": _commit(version),
        "SecurityOptions": list(info.security_options),
        "CDISpecDirs": [],
        "Warnings": list(info.warnings) or None,
    }
    if version >= (1, 49):
        made["FirewallBackend"] = {"Driver": "nftables"}
    if version < (1, 50):
        made["BridgeNfIptables"] = made["BridgeNfIp6tables"] = False
    if version < (1, 42):
        made["KernelMemory"] = made["KernelMemoryTCP"] = False
    return made


def _stock(info: EngineInfo) -> dict[str, Any]:
    """What it has, and what it can do with it."""
    return {
        "Containers": info.containers_running + info.containers_paused + info.containers_stopped,
        "ContainersRunning": info.containers_running,
        "ContainersPaused": info.containers_paused,
        "ContainersStopped": info.containers_stopped,
        "Images": info.images,
        "Driver": info.driver,
        "DriverStatus": [list(pair) for pair in info.driver_status],
        "DockerRootDir": info.data_root,
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": None,
            "Log": list(info.log_drivers),
        },
        "LoggingDriver": "json-file",
    }


def _what_can_be_limited(info: EngineInfo) -> dict[str, Any]:
    return {
        "MemoryLimit": info.memory_limit,
        "SwapLimit": info.swap_limit,
        "CpuCfsPeriod": info.cpu_cfs_period,
        "CpuCfsQuota": info.cpu_cfs_quota,
        "CPUShares": info.cpu_shares,
        "CPUSet": info.cpu_set,
        "PidsLimit": info.pids_limit,
        "OomKillDisable": info.oom_kill_disable,
        "CgroupDriver": info.cgroup_driver,
        "CgroupVersion": info.cgroup_version,
    }


def _process(info: EngineInfo) -> dict[str, Any]:
    """Of the engine's own process."""
    return {
        "Debug": info.debug,
        "NFd": info.file_descriptors,
        "NGoroutines": info.tasks,
        "NEventsListener": info.event_listeners,
    }


def _host(info: EngineInfo) -> dict[str, Any]:
    return {
        "Name": info.name,
        "SystemTime": format_rfc3339(info.system_time_ns),
        "KernelVersion": info.kernel_version,
        "OperatingSystem": info.operating_system,
        "OSVersion": info.os_version,
        "OSType": "linux",
        "Architecture": info.architecture,
        "NCPU": info.cpus,
        "MemTotal": info.memory_total_bytes,
        "IPv4Forwarding": info.ipv4_forwarding,
    }


_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


def _commit(version: tuple[int, int]) -> dict[str, str]:
    """There is no such program in Tare: an empty commit, as Docker prints an unknown one."""
    return {"ID": "", "Expected": ""} if version < (1, 49) else {"ID": ""}


def _registry_json(info: EngineInfo, version: tuple[int, int]) -> dict[str, Any]:
    mirrors = [f"{mirror.rstrip('/')}/" for mirror in info.registry_mirrors if "=" not in mirror.partition("://")[0]]
    networks = [text for text in info.insecure_registries if "/" in text]
    indexes: dict[str, Any] = {"docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}}
    for name in info.insecure_registries:
        if "/" not in name:
            indexes[name] = {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
    made: dict[str, Any] = {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *networks],
        "IndexConfigs": indexes,
        "Mirrors": mirrors,
    }
    if version < (1, 49):
        made["AllowNondistributableArtifactsCIDRs"] = []
        made["AllowNondistributableArtifactsHostnames"] = []
    return made
