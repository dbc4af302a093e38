"""Checks the options of create and update: what is wrong is InvalidArgument, what isn't there yet is Unsupported. Pure.

Whatever passes here is honoured; nothing that a caller asks for is dropped without a word.
"""

from __future__ import annotations

import os
import posixpath
import re

from tare.engine.log_options import check_log
from tare.engine.oci_security import effective_capabilities, parse_security
from tare.engine.options import ContainerConfig, HostOptions, ResourceOptions, RestartPolicy
from tare.errors import InvalidArgument, Unsupported
from tare.runtime.cgroups.hierarchies import validate_path
from tare.values.signals import parse_signal

MIN_MEMORY_BYTES = 6 << 20
RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")
RUNTIMES = ("", "tare")
PROTOCOLS = ("tcp", "udp", "sctp")
_ENV_NAME = re.compile(r"[^=\0]+")
_SYSCTL_NAMESPACED = ("net.", "fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm", "kernel.domainname")


def check_config(config: ContainerConfig) -> None:
    """Raises if a container's portable settings are wrong."""
    if config.stop_signal:
        parse_signal(config.stop_signal)
    for variable in config.env or ():
        if not _ENV_NAME.match(variable):
            raise InvalidArgument(f"invalid environment variable: {variable[:200]}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    for port in config.exposed_ports or {}:
        parse_port(port)
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidArgument(f"invalid stop timeout: {config.stop_timeout}")


def check_host(host: HostOptions) -> None:
    """Raises if a container's host settings are wrong or not supported."""
    check_resources(host)
    check_restart_policy(host.restart_policy, auto_remove=host.auto_remove)
    _refuse_missing(host)
    if host.runtime not in RUNTIMES:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation '{host.isolation}' on linux")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    check_log(host.log_config)
    effective_capabilities(host)
    parse_security(host)
    for port, bindings in (host.port_bindings or {}).items():
        parse_port(port)
        for binding in bindings or ():
            check_host_port(binding.host_port)
    _check_modes(host)
    for name in host.sysctls or {}:
        _check_sysctl(name, host)
    if host.cgroup_parent:
        validate_path(posixpath.normpath(f"/{host.cgroup_parent.lstrip('/')}/{'0' * 64}"))
    if "" in (host.annotations or {}):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")


def check_shared_namespaces(config: ContainerConfig, host: HostOptions) -> None:
    """Raises, with Docker's texts, if a new container asks for what another's or the host's namespace has decided.

    config: as the request has it, not completed from the image.
    """
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if network_kind(host.network_mode) != "container":
        return
    decided = {
        "hostname and the network mode": config.hostname,
        "dns and the network mode": host.dns,
        "custom host-to-IP mapping and the network mode": host.extra_hosts,
        "mac-address and the network mode": config.mac_address,
        "port publishing and the container type network mode": host.port_bindings or host.publish_all_ports,
        "port exposing and the container type network mode": config.exposed_ports,
    }
    for what, asked in decided.items():
        if asked:
            raise InvalidArgument(f"conflicting options: {what}")


def _refuse_missing(host: HostOptions) -> None:
    absent = {
        "DeviceRequests": host.device_requests,
        "CpuCount": host.cpu_count,
        "CpuPercent": host.cpu_percent,
        "IOMaximumIOps": host.io_maximum_iops,
        "IOMaximumBandwidth": host.io_maximum_bandwidth,
        "Cgroup": host.cgroup,
    }
    for name, value in absent.items():
        if value:
            raise Unsupported(f"option {name} is not supported by Tare yet")


def _check_modes(host: HostOptions) -> None:
    if host.pid_mode not in ("", "private", "host") and not host.pid_mode.startswith("container:"):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.ipc_mode not in ("", "none", "private", "host", "shareable") and not host.ipc_mode.startswith("container:"):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.userns_mode not in ("", "host", "private"):
        raise InvalidArgument(f"invalid user namespace mode: {host.userns_mode}")


def _check_sysctl(name: str, host: HostOptions) -> None:
    if not name.startswith(_SYSCTL_NAMESPACED) or "/" in name or ".." in name:
        raise InvalidArgument(f"invalid sysctl '{name}': it is not namespaced")
    if name.startswith("net.") and host.network_mode == "host":
        raise InvalidArgument(f"sysctl '{name}' not allowed in host network namespace")
    if not name.startswith("net.") and host.ipc_mode == "host":
        raise InvalidArgument(f"sysctl '{name}' not allowed in host ipc namespace")


def check_restart_policy(policy: RestartPolicy | None, *, auto_remove: bool) -> None:
    """Raises if a restart policy is wrong, with Docker's texts."""
    if policy is None:
        return
    if policy.name not in RESTART_POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def check_resources(resources: ResourceOptions) -> None:
    """Raises if limits contradict each other or are out of range, with Docker's texts."""
    _check_memory(resources)
    _check_cpu(resources)
    if resources.blkio_weight and not 10 <= resources.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    for limit in resources.ulimits or ():
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )


def _check_memory(resources: ResourceOptions) -> None:
    memory, swap = resources.memory, resources.memory_swap
    if memory and memory < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not memory and swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    swappiness = resources.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    reservation = resources.memory_reservation
    if reservation and reservation < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory > 0 and reservation > memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(resources: ResourceOptions) -> None:
    if resources.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({resources.cpu_shares}): value must be a positive integer")
    if resources.nano_cpus and (resources.cpu_period or resources.cpu_quota):
        which = "CPU Period" if resources.cpu_period else "CPU Quota"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and {which} cannot both be set")
    if resources.nano_cpus < 0:
        raise InvalidArgument(f"range of CPUs is from 0.01 to {_cpus()}.00, as there are only {_cpus()} CPUs available")
    if resources.nano_cpus > _cpus() * 10**9 or 0 < resources.nano_cpus < 10**7:
        raise InvalidArgument(f"range of CPUs is from 0.01 to {_cpus()}.00, as there are only {_cpus()} CPUs available")
    if resources.cpu_period and not 1000 <= resources.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if resources.cpu_quota and 0 < resources.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    period, runtime = resources.cpu_realtime_period, resources.cpu_realtime_runtime
    if period and runtime > period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")


def _cpus() -> int:
    return os.cpu_count() or 1


def network_kind(mode: str) -> str:
    """bridge, host, none, container, or custom (a network of the user's own), for a network mode."""
    if mode in ("", "default", "bridge"):
        return "bridge"
    if mode in ("host", "none"):
        return mode
    if mode.startswith("container:"):
        return "container"
    return "custom"


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` or `80` as number and protocol. Raises InvalidArgument with Docker's text."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in PROTOCOLS or not number.isascii() or not number.isdigit() or not 0 < int(number) <= 65535:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return int(number), protocol


def check_host_port(text: str) -> tuple[int, int]:
    """The ends of a host port or range; 0 where there is none. Raises InvalidArgument with Docker's text."""
    first, _, last = text.partition("-")
    try:
        low, high = int(first or "0"), int(last or "0")
    except ValueError as error:
        raise InvalidArgument(f"invalid port specification: {text!r}") from error
    if not 0 <= low <= 65535 or not 0 <= high <= 65535 or (high and high < low):
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return low, high
