"""What the engine knows of containers and processes: what it stores, and what list and inspect answer. Pure."""

from __future__ import annotations

import msgspec

from tare.engine.network_options import AddressPoolOptions
from tare.engine.options import ContainerConfig, EndpointOptions, ExecOptions, HostOptions
from tare.volumes.records import LocalMount


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records: immutable; a change makes a new one (`msgspec.structs.replace`)."""


class HealthProbe(Record, frozen=True, kw_only=True):
    """One run of a health check. exit_code 0: healthy; -1: it didn't end in time, or couldn't be started."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str = ""


class Health(Record, frozen=True, kw_only=True):
    """What health checks say. status: starting, healthy or unhealthy; log: the last probes, oldest first."""

    status: str
    failing_streak: int = 0
    log: tuple[HealthProbe, ...] = ()


class ContainerState(Record, frozen=True, kw_only=True):
    """Where a container is in its life.

    status: created, running, paused, restarting, removing, exited or dead. Instants in nanoseconds since the epoch,
    0 for never. exit_code is Docker's (128 + signal for a killed process). ended_by: what the engine did to end it, in
    words ("" if it did nothing). memory_peak_bytes: how much it had used when it was killed for want of memory.
    """

    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False
    ended_by: str = ""
    memory_peak_bytes: int = 0
    removes_volumes: bool = False
    health: Health | None = None

    @property
    def running(self) -> bool:
        """Whether the container has processes (a paused container has; one waiting for its restart counts, too)."""
        return self.status in ("running", "paused", "restarting")

    @property
    def paused(self) -> bool:
        """Whether its processes are frozen."""
        return self.status == "paused"


class MountPoint(Record, frozen=True, kw_only=True):
    """A mount of the host or of a volume inside a container.

    anonymous: a volume that the user gave no name. no_copy: a volume that isn't filled from the image. local: what the
    volume's options have mounted. image_id, layers: of a mount of an image.
    """

    type: str
    source: str
    destination: str
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    anonymous: bool = False
    no_copy: bool = False
    subpath: str = ""
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    local: LocalMount | None = None
    image_id: str = ""
    layers: tuple[str, ...] = ()


class MountChange(Record, frozen=True, kw_only=True):
    """A mount that is being added to a container, or removed from it, while it runs. action: add or remove."""

    action: str
    destination: str


class VolumeDetail(Record, frozen=True, kw_only=True):
    """What the verbs of volumes answer. size_bytes, users: only where they were asked for."""

    name: str
    driver: str
    created_ns: int
    mountpoint: str
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    size_bytes: int | None = None
    users: int | None = None


class PublishedPort(Record, frozen=True, kw_only=True):
    """A container's port and where the host publishes it (host_port 0: it isn't). protocol: tcp, udp or sctp."""

    container_port: int
    protocol: str
    host_ip: str = ""
    host_port: int = 0


class EndpointState(Record, frozen=True, kw_only=True):
    """A container's place in one network; addresses are empty while it isn't connected. wish: what was asked for."""

    network: str
    network_id: str = ""
    endpoint_id: str = ""
    ip_address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefix_length: int = 0
    ipv6_gateway: str = ""
    mac_address: str = ""
    aliases: tuple[str, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    wish: EndpointOptions | None = None
    driver: str = ""


class IdRange(Record, frozen=True, kw_only=True):
    """The host's ids of a container with a user namespace of its own: what its user 0 and group 0 are."""

    uid: int
    gid: int


class Container(Record, frozen=True, kw_only=True):
    """A container as it is stored.

    head_id: the last commit of it since it was made or checked out. change: what is being done to its mounts.
    leaving: what it was when it was about to move to another engine, see departure.py. ids: see user_namespaces.py.
    """

    id: str
    name: str
    created_ns: int
    image_id: str
    layers: tuple[str, ...]
    path: str
    args: tuple[str, ...]
    config: ContainerConfig
    host: HostOptions
    state: ContainerState
    mounts: tuple[MountPoint, ...] = ()
    endpoint: EndpointState | None = None
    more_endpoints: tuple[EndpointState, ...] = ()
    platform: str = "linux"
    stop_signal: int = 15
    log_path: str = ""
    directory: str = ""
    head_id: str = ""
    leaving: str = ""
    change: MountChange | None = None
    ids: IdRange | None = None

    @property
    def endpoints(self) -> tuple[EndpointState, ...]:
        """Its places in all its networks, the first one's first."""
        return (self.endpoint, *self.more_endpoints) if self.endpoint is not None else ()

    @property
    def image_reference(self) -> str:
        """What the user called the image at create."""
        return self.config.image


class ContainerSummary(Record, frozen=True, kw_only=True):
    """One row of the container list."""

    container: Container
    image_name: str
    size_rw_bytes: int | None = None
    size_root_bytes: int | None = None


class LogShipping(Record, frozen=True, kw_only=True):
    """How a log driver that ships gets on. dropped: entries rotated away before they were sent; error: why it waits."""

    driver: str
    sent: int = 0
    dropped: int = 0
    error: str = ""


class ContainerDetail(Record, frozen=True, kw_only=True):
    """What inspect answers."""

    container: Container
    exec_ids: tuple[str, ...]
    hostname_path: str
    hosts_path: str
    resolv_conf_path: str
    lower_dirs: tuple[str, ...]
    upper_dir: str
    work_dir: str
    sandbox_id: str = ""
    size_rw_bytes: int | None = None
    size_root_bytes: int | None = None
    log_shipping: LogShipping | None = None
    apparmor_profile: str = ""


class ExecRecord(Record, frozen=True, kw_only=True):
    """A further process of a container. exit_code None while it hasn't ended."""

    id: str
    container_id: str
    options: ExecOptions
    entrypoint: str
    arguments: tuple[str, ...]
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    can_remove: bool = False


class Created(Record, frozen=True, kw_only=True):
    """A created container and the warnings that the user should read."""

    id: str
    warnings: tuple[str, ...] = ()


class WaitResult(Record, frozen=True, kw_only=True):
    """What wait answers: the exit code, and why the container could not be waited for or started, if so."""

    exit_code: int
    error: str = ""


class ProcessTable(Record, frozen=True, kw_only=True):
    """What top answers."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


class FileChange(Record, frozen=True, kw_only=True):
    """kind: "A" added, "C" changed, "D" deleted."""

    kind: str
    path: str


class PruneReport(Record, frozen=True, kw_only=True):
    """What a prune removed. reclaimed_bytes: freed; trashed: how many of it wait in the trash, and their bytes."""

    removed: tuple[str, ...]
    reclaimed_bytes: int
    trashed: int = 0
    trashed_bytes: int = 0


class Event(Record, frozen=True, kw_only=True):
    """Something that happened. type: container, image, network, daemon …"""

    type: str
    action: str
    actor_id: str
    attributes: dict[str, str]
    time_ns: int
    scope: str = "local"


class NetworkDetail(Record, frozen=True, kw_only=True):
    """A network and who is connected to it (container id to endpoint).

    pools: what was asked of its addresses, by Docker's names; if nothing was, subnet and gateway say it.
    """

    id: str
    name: str
    driver: str
    created_ns: int
    scope: str = "local"
    subnet: str = ""
    gateway: str = ""
    ipv4: bool = True
    ipv6: bool = False
    subnet6: str = ""
    gateway6: str = ""
    internal: bool = False
    attachable: bool = False
    pools: tuple[AddressPoolOptions, ...] = ()
    address_options: dict[str, str] | None = None
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    containers: dict[str, tuple[str, EndpointState]] = {}
    config_only: bool = False
    config_from: str = ""


class EngineVersion(Record, frozen=True, kw_only=True):
    """What version answers."""

    version: str
    api_version: str
    min_api_version: str
    os: str
    arch: str
    kernel_version: str
    build_time: str
    git_commit: str
    python_version: str


class EngineInfo(Record, frozen=True, kw_only=True):
    """What info answers."""

    id: str
    name: str
    containers_running: int
    containers_paused: int
    containers_stopped: int
    images: int
    driver: str
    driver_status: tuple[tuple[str, str], ...]
    data_root: str
    memory_total_bytes: int
    cpus: int
    kernel_version: str
    operating_system: str
    os_version: str
    architecture: str
    server_version: str
    cgroup_driver: str
    cgroup_version: str
    system_time_ns: int
    security_options: tuple[str, ...]
    warnings: tuple[str, ...]
    labels: tuple[str, ...]
    debug: bool
    file_descriptors: int
    tasks: int
    event_listeners: int
    memory_limit: bool
    swap_limit: bool
    cpu_cfs_period: bool
    cpu_cfs_quota: bool
    cpu_shares: bool
    cpu_set: bool
    pids_limit: bool
    oom_kill_disable: bool
    ipv4_forwarding: bool
    runtimes: dict[str, str]
    default_runtime: str
    init_binary: str
    live_restore: bool
    log_drivers: tuple[str, ...]
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
