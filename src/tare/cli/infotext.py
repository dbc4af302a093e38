"""The text of `tare info`: the engine's facts, in the order and words that Docker's users look for."""

from __future__ import annotations

from tare.cli.units import format_binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Info = dict[str, Any]

# What the engine can lack, and the warning that says so.
MISSING = (
    ("MemoryLimit", "WARNING: No memory limit support"),
    ("SwapLimit", "WARNING: No swap limit support"),
    ("OomKillDisable", "WARNING: No oom kill disable support"),
    ("CpuCfsQuota", "WARNING: No cpu cfs quota support"),
    ("CpuCfsPeriod", "WARNING: No cpu cfs period support"),
    ("CPUShares", "WARNING: No cpu shares support"),
    ("CPUSet", "WARNING: No cpuset support"),
    ("IPv4Forwarding", "WARNING: IPv4 forwarding is disabled"),
)


def info_lines(info: Info) -> list[str]:
    lines = [
        f" Containers: {info.get('Containers', 0)}",
        f"  Running: {info.get('ContainersRunning', 0)}",
        f"  Paused: {info.get('ContainersPaused', 0)}",
        f"  Stopped: {info.get('ContainersStopped', 0)}",
        f" Images: {info.get('Images', 0)}",
    ]
    lines += _some(info, (("Server Version", "ServerVersion"),))
    lines.append(f" Storage Driver: {info.get('Driver', '')}")
    lines += [f"  {name}: {value}" for name, value in info.get("DriverStatus") or []]
    lines += _some(
        info,
        (("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"), ("Cgroup Version", "CgroupVersion")),
    )
    lines += _plugins(info.get("Plugins") or {})
    lines += _runtimes(info)
    lines += _security(info.get("SecurityOptions") or [])
    lines += _machine(info)
    lines += _proxies(info)
    lines += _labels_and_registries(info)
    if "LiveRestoreEnabled" in info:
        lines.append(f" Live Restore Enabled: {_word(info['LiveRestoreEnabled'])}")
    if info.get("FirewallBackend"):
        lines.append(f" Firewall Backend: {info['FirewallBackend'].get('Driver', '')}")
    return lines


def _word(value: object) -> str:
    return "true" if value else "false"


def _some(info: Info, pairs: tuple[tuple[str, str], ...]) -> list[str]:
    return [f" {label}: {info[key]}" for label, key in pairs if info.get(key)]


def _plugins(plugins: Info) -> list[str]:
    lines = [" Plugins:"]
    for label, key in (
        ("Volume", "Volume"),
        ("Network", "Network"),
        ("Authorization", "Authorization"),
        ("Log", "Log"),
    ):
        names = plugins.get(key) or []
        if names or key in ("Volume", "Network", "Log"):
            lines.append(f"  {label}: {' '.join(names)}")
    return lines


def _runtimes(info: Info) -> list[str]:
    lines = []
    swarm = info.get("Swarm") or {}
    lines.append(f" Swarm: {swarm.get('LocalNodeState') or 'inactive'}")
    if info.get("Runtimes"):
        lines.append(" Runtimes: " + " ".join(sorted(info["Runtimes"])))
        lines.append(f" Default Runtime: {info.get('DefaultRuntime', '')}")
    lines.append(f" Init Binary: {info.get('InitBinary', '')}")
    for label, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        if key in info:
            lines.append(f" {label} version: {(info[key] or {}).get('ID', '')}")
    return lines


def _security(options: list[str]) -> list[str]:
    if not options:
        return []
    lines = [" Security Options:"]
    for option in options:
        fields = [field.partition("=")[::2] for field in option.split(",")]
        for key, value in fields:
            if key == "name":
                lines.append(f"  {value}")
            else:
                lines.append(f"   {'Profile' if key == 'profile' else key}: {value}")
    return lines


def _machine(info: Info) -> list[str]:
    lines = _some(
        info,
        (
            ("Kernel Version", "KernelVersion"),
            ("Operating System", "OperatingSystem"),
            ("OSType", "OSType"),
            ("Architecture", "Architecture"),
        ),
    )
    lines.append(f" CPUs: {info.get('NCPU', 0)}")
    lines.append(f" Total Memory: {format_binary_size(info.get('MemTotal', 0))}")
    lines.append(f" Name: {info.get('Name', '')}")
    lines.append(f" ID: {info.get('ID', '')}")
    lines.append(f" Docker Root Dir: {info.get('DockerRootDir', '')}")
    lines.append(f" Debug Mode: {_word(info.get('Debug'))}")
    if info.get("Debug"):
        lines += [
            f"  File Descriptors: {info.get('NFd', 0)}",
            f"  Goroutines: {info.get('NGoroutines', 0)}",
            f"  System Time: {info.get('SystemTime', '')}",
            f"  EventsListeners: {info.get('NEventsListener', 0)}",
        ]
    return lines


def _proxies(info: Info) -> list[str]:
    return _some(info, (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")))


def _labels_and_registries(info: Info) -> list[str]:
    lines = []
    if info.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in info["Labels"])]
    lines.append(f" Experimental: {_word(info.get('ExperimentalBuild'))}")
    registries = info.get("RegistryConfig") or {}
    insecure = [name for name, facts in (registries.get("IndexConfigs") or {}).items() if not facts.get("Secure")]
    insecure += registries.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if registries.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {name}" for name in registries["Mirrors"])]
    return lines


def warning_lines(info: Info) -> list[str]:
    if info.get("Warnings") is not None:
        return list(info["Warnings"])
    return [text for key, text in MISSING if key in info and not info[key]]
