"""What a caller may ask of a container: the arguments of create, update and exec as records. Pure.

Field names follow Docker's (in Python's spelling), so that `api/wire.py` can derive the JSON names by rule; what a
field means is Docker's Engine API, version 1.55, definitions ContainerConfig, HostConfig and Resources. A field that
is None was not given.
"""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all options: immutable, given by name."""


class HealthcheckOptions(Options, frozen=True, kw_only=True):
    """A health check: test is Docker's list (`["CMD", …]`, `["CMD-SHELL", …]`, `["NONE"]`); times in nanoseconds."""

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class ContainerConfig(Options, frozen=True, kw_only=True):
    """The portable part of a container's settings, which an image's config may supply too."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, str]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    healthcheck: HealthcheckOptions | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, str]] | None = None
    working_dir: str = ""
    entrypoint: tuple[str, ...] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: tuple[str, ...] | None = None


class PortBinding(Options, frozen=True, kw_only=True):
    """Where on the host a container's port is published; host_port may be empty, a port or a range."""

    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(Options, frozen=True, kw_only=True):
    """name: "", no, always, unless-stopped or on-failure."""

    name: str = ""
    maximum_retry_count: int = 0


class LogOptions(Options, frozen=True, kw_only=True):
    """The log driver and its options."""

    type: str = ""
    config: dict[str, str] | None = None


class DeviceMapping(Options, frozen=True, kw_only=True):
    """A device of the host in the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Options, frozen=True, kw_only=True):
    """A request for devices through a driver (GPUs)."""

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] | None = None
    capabilities: tuple[tuple[str, ...], ...] | None = None
    options: dict[str, str] | None = None


class WeightDevice(Options, frozen=True, kw_only=True):
    """A block device's share of I/O."""

    path: str = ""
    weight: int = 0


class ThrottleDevice(Options, frozen=True, kw_only=True):
    """A block device's limit, in bytes or operations a second."""

    path: str = ""
    rate: int = 0


class Ulimit(Options, frozen=True, kw_only=True):
    """A resource limit (setrlimit(2))."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class ResourceOptions(Options, frozen=True, kw_only=True):
    """Limits and ranks. Memory in bytes, nano_cpus in 1e-9 CPUs, cpu_period and cpu_quota in microseconds."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] | None = None
    blkio_device_read_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_read_iops: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_iops: tuple[ThrottleDevice, ...] | None = None
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] | None = None
    device_cgroup_rules: tuple[str, ...] | None = None
    device_requests: tuple[DeviceRequest, ...] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0
    kernel_memory: int = 0
    kernel_memory_tcp: int = 0


class BindOptions(Options, frozen=True, kw_only=True):
    """How a bind mount behaves."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Options, frozen=True, kw_only=True):
    """How a volume mount behaves."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: dict[str, object] | None = None
    subpath: str = ""


class TmpfsOptions(Options, frozen=True, kw_only=True):
    """A tmpfs mount's size in bytes and mode bits."""

    size_bytes: int = 0
    mode: int = 0
    options: tuple[tuple[str, ...], ...] | None = None


class ImageOptions(Options, frozen=True, kw_only=True):
    """How a mount of an image behaves. subpath: what of it is shown."""

    subpath: str = ""


class MountOptions(Options, frozen=True, kw_only=True):
    """One `--mount`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    cluster_options: dict[str, object] | None = None


class HostOptions(ResourceOptions, frozen=True, kw_only=True):
    """The part of a container's settings that depends on the host."""

    binds: tuple[str, ...] | None = None
    container_id_file: str = ""
    log_config: LogOptions | None = None
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    restart_policy: RestartPolicy | None = None
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] | None = None
    mounts: tuple[MountOptions, ...] | None = None
    console_size: tuple[int, int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: tuple[str, ...] | None = None
    cap_drop: tuple[str, ...] | None = None
    cgroupns_mode: str = ""
    dns: tuple[str, ...] | None = None
    dns_options: tuple[str, ...] | None = None
    dns_search: tuple[str, ...] | None = None
    extra_hosts: tuple[str, ...] | None = None
    group_add: tuple[str, ...] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    init: bool | None = None
    health_on_failure: str = ""
    egress: str = ""
    depends_on: tuple[str, ...] | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None


class EndpointIpam(Options, frozen=True, kw_only=True):
    """Static addresses asked for an endpoint."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] | None = None


class EndpointOptions(Options, frozen=True, kw_only=True):
    """How a container joins one network."""

    ipam_config: EndpointIpam | None = None
    links: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingOptions(Options, frozen=True, kw_only=True):
    """Endpoints by network name."""

    endpoints_config: dict[str, EndpointOptions | None] | None = None


class UpdateOptions(ResourceOptions, frozen=True, kw_only=True):
    """What `update` may change on a live container.

    publish_*, mount_*, network_*, egress, storage_opt: Tare's own. mount_remove: places inside; network_remove: names;
    network_set: endpoints' driver options (their speed).
    """

    restart_policy: RestartPolicy | None = None
    egress: str = ""
    storage_opt: dict[str, str] | None = None
    publish_add: dict[str, tuple[PortBinding, ...] | None] | None = None
    publish_remove: dict[str, tuple[PortBinding, ...] | None] | None = None
    mount_add: tuple[MountOptions, ...] | None = None
    mount_remove: tuple[str, ...] | None = None
    network_add: dict[str, EndpointOptions | None] | None = None
    network_remove: tuple[str, ...] | None = None
    network_set: dict[str, EndpointOptions | None] | None = None


class ExecOptions(Options, frozen=True, kw_only=True):
    """A further process in a running container."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: tuple[int, int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class AttachOptions(Options, frozen=True, kw_only=True):
    """Which streams an attach wants; logs: what was written before; stream: what comes."""

    logs: bool = False
    stream: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""


class LogsOptions(Options, frozen=True, kw_only=True):
    """Which log entries; since and until in nanoseconds since the epoch (0: unbounded); tail None means all."""

    follow: bool = False
    stdout: bool = False
    stderr: bool = False
    since_ns: int = 0
    until_ns: int = 0
    timestamps: bool = False
    details: bool = False
    tail: int | None = None


class CommitOptions(Options, frozen=True, kw_only=True):
    """A commit's arguments. repository and tag may be empty: an image without a name."""

    repository: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    config: ContainerConfig | None = None
