"""The body of POST /containers/create from the flags of run and create, field by field as Docker's client fills it."""

from __future__ import annotations

from tare.cli.create.checks import pairs
from tare.cli.create.devices import device_requests, parse_device
from tare.cli.create.mounts import split_tmpfs, split_volumes
from tare.cli.create.networks import endpoints, network_mode
from tare.cli.create.ports import expose, publish
from tare.cli.create.settings import (
    health_config,
    log_config,
    parse_restart,
    read_environment,
    read_labels,
    security_options,
    storage_options,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.command import Values

WINDOWS_ONLY = ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")


def merge_aliases(flags: Values) -> None:
    """--net and --net-alias are older names of --network and --network-alias."""
    for old, new in (("net", "network"), ("net-alias", "network-alias"), ("dns-opt", "dns-option")):
        flags.values[new] = [*flags[old], *flags[new]]


def container_body(flags: Values, image: str, arguments: list[str]) -> dict[str, Any]:
    """Raises ValueError with Docker's sentence if the flags contradict each other."""
    merge_aliases(flags)
    refuse_windows(flags)
    swappiness = flags["memory-swappiness"]
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    binds, volumes = split_volumes(flags.items("volume"))
    exposed, bindings = publish(flags.items("publish"))
    exposed.update(expose(flags.items("expose")))
    body = {**config_of(flags, image, arguments), "Volumes": volumes}
    if exposed:
        body["ExposedPorts"] = exposed
    host = host_config_of(flags)
    host["Binds"] = binds
    host["PortBindings"] = bindings
    body["HostConfig"] = host
    body["NetworkingConfig"] = {"EndpointsConfig": endpoints(flags)}
    return body


def refuse_windows(flags: Values) -> None:
    for name in WINDOWS_ONLY:
        if name in flags.given:
            raise ValueError(f'"--{name}" is only supported on an engine that runs on Windows')


def attachments(flags: Values) -> tuple[bool, bool, bool]:
    """(stdin, stdout, stderr): what --attach says, or Docker's defaults."""
    wanted = flags.items("attach")
    interactive = flags.on("interactive")
    if wanted:
        return "stdin" in wanted or interactive, "stdout" in wanted, "stderr" in wanted
    attached = not flags.values.get("detach", False)
    return attached and interactive, attached, attached


def config_of(flags: Values, image: str, arguments: list[str]) -> dict[str, Any]:
    stdin, stdout, stderr = attachments(flags)
    entrypoint = None
    if "entrypoint" in flags.given:
        entrypoint = [flags.text("entrypoint")]
    config: dict[str, Any] = {
        "Hostname": flags["hostname"],
        "Domainname": flags["domainname"],
        "User": flags["user"],
        "AttachStdin": stdin,
        "AttachStdout": stdout,
        "AttachStderr": stderr,
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": flags.on("interactive") and stdin,
        "Env": read_environment(flags.items("env-file"), flags.items("env")) or None,
        "Cmd": arguments or None,
        "Image": image,
        "WorkingDir": flags["workdir"],
        "Entrypoint": entrypoint,
        "OnBuild": None,
        "Labels": read_labels(flags.items("label-file"), flags.items("label")),
    }
    health = health_config(flags)
    if health is not None:
        config["Healthcheck"] = health
    if flags["stop-signal"]:
        config["StopSignal"] = flags["stop-signal"]
    if "stop-timeout" in flags.given:
        config["StopTimeout"] = flags["stop-timeout"]
    return config


def host_config_of(flags: Values) -> dict[str, Any]:
    check_namespaces(flags)
    restart = parse_restart(flags.text("restart"))
    if flags.on("rm") and restart["Name"] not in ("no", ""):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    security, unmasked = security_options(flags.items("security-opt"))
    host: dict[str, Any] = {
        "ContainerIDFile": flags["cidfile"],
        "LogConfig": log_config(flags.text("log-driver"), flags.items("log-opt")),
        "NetworkMode": network_mode(flags),
        "RestartPolicy": restart,
        "AutoRemove": flags["rm"],
        "VolumeDriver": flags["volume-driver"],
        "VolumesFrom": flags["volumes-from"] or None,
        "ConsoleSize": [0, 0],
        "CapAdd": capabilities(flags.items("cap-add")),
        "CapDrop": capabilities(flags.items("cap-drop")),
        "CgroupnsMode": flags["cgroupns"],
        "Dns": flags["dns"],
        "DnsOptions": flags["dns-option"],
        "DnsSearch": flags["dns-search"],
        "ExtraHosts": flags["add-host"] or None,
        "GroupAdd": flags["group-add"] or None,
        "IpcMode": flags["ipc"],
        "Cgroup": "",
        "Links": flags["link"] or None,
        "OomScoreAdj": flags["oom-score-adj"],
        "PidMode": flags["pid"],
        "Privileged": flags["privileged"],
        "PublishAllPorts": flags["publish-all"],
        "ReadonlyRootfs": flags["read-only"],
        "SecurityOpt": security,
        "UTSMode": flags["uts"],
        "UsernsMode": flags["userns"],
        "ShmSize": flags["shm-size"],
        "Isolation": flags["isolation"],
        "MaskedPaths": [] if unmasked else None,
        "ReadonlyPaths": [] if unmasked else None,
        **resources_of(flags),
    }
    host.update({name: value for name, value in _left_out_if_empty(flags).items() if value})
    if "init" in flags.given:
        host["Init"] = flags["init"]
    return host


def _left_out_if_empty(flags: Values) -> dict[str, Any]:
    """Keys that an engine may not know: they are sent where they say something."""
    return {
        "DependsOn": flags["depends-on"],
        "HealthOnFailure": flags["health-on-failure"],
        "Egress": flags["egress"],
        "Annotations": pairs(flags.items("annotation")),
        "StorageOpt": storage_options(flags.items("storage-opt")),
        "Sysctls": pairs(flags.items("sysctl")),
        "Tmpfs": split_tmpfs(flags.items("tmpfs")),
        "Mounts": flags["mount"],
        "Runtime": flags["runtime"],
    }


def resources_of(flags: Values) -> dict[str, Any]:
    return {
        "CpuShares": flags["cpu-shares"],
        "Memory": flags["memory"],
        "NanoCpus": flags["cpus"],
        "CgroupParent": flags["cgroup-parent"],
        "BlkioWeight": flags["blkio-weight"],
        "BlkioWeightDevice": flags["blkio-weight-device"],
        "BlkioDeviceReadBps": flags["device-read-bps"],
        "BlkioDeviceWriteBps": flags["device-write-bps"],
        "BlkioDeviceReadIOps": flags["device-read-iops"],
        "BlkioDeviceWriteIOps": flags["device-write-iops"],
        "CpuPeriod": flags["cpu-period"],
        "CpuQuota": flags["cpu-quota"],
        "CpuRealtimePeriod": flags["cpu-rt-period"],
        "CpuRealtimeRuntime": flags["cpu-rt-runtime"],
        "CpusetCpus": flags["cpuset-cpus"],
        "CpusetMems": flags["cpuset-mems"],
        "Devices": [parse_device(item) for item in flags.items("device") if not is_cdi(item)],
        "DeviceCgroupRules": flags["device-cgroup-rule"] or None,
        "DeviceRequests": device_requests(flags["gpus"], [item for item in flags.items("device") if is_cdi(item)]),
        "MemoryReservation": flags["memory-reservation"],
        "MemorySwap": flags["memory-swap"],
        "MemorySwappiness": flags["memory-swappiness"],
        "OomKillDisable": flags["oom-kill-disable"],
        "PidsLimit": flags["pids-limit"],
        "Ulimits": last_of_each(flags["ulimit"]),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def is_cdi(text: str) -> bool:
    """vendor.com/class=name (Container Device Interface) rather than a path."""
    return not text.startswith("/") and "=" in text and "/" in text


def last_of_each(limits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({limit["Name"]: limit for limit in limits}.values())


def capabilities(names: list[str]) -> list[str] | None:
    found = set()
    for name in names:
        upper = name.strip().upper()
        found.add(upper if upper == "ALL" or upper.startswith("CAP_") else "CAP_" + upper)
    return sorted(found) or None


def check_namespaces(flags: Values) -> None:
    if flags["pid"] not in ("", "host") and not flags["pid"].startswith("container:"):
        raise ValueError("--pid: invalid PID mode")
    if flags["uts"] not in ("", "host"):
        raise ValueError("--uts: invalid UTS mode")
    if flags["userns"] not in ("", "host", "private"):
        raise ValueError("--userns: invalid USER mode")
    if flags["cgroupns"] not in ("", "host", "private"):
        raise ValueError("--cgroupns: invalid CGROUP mode")
