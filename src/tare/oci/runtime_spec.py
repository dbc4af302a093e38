"""The OCI runtime specification 1.2 for Linux as records; parses and prints them, and never touches the machine.

Field names are the specification's in snake case; `tests/runtime/test_runtime_spec.py` holds them against its schema.
Unknown fields are ignored, as the specification asks ("extensibility").
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tare.errors import InvalidArgument

OCI_VERSION = "1.2.1"

NamespaceType = Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]
SeccompAction = Literal[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
]
SeccompOperator = Literal[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]


class Record(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What every record of the specification shares: camelCase keys, defaults left out."""


class IDMapping(Record, frozen=True):
    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class User(Record, frozen=True):
    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] | None = None
    username: str | None = None


class ConsoleSize(Record, frozen=True):
    height: int
    width: int


class Capabilities(Record, frozen=True):
    """The five sets; names such as CAP_CHOWN."""

    bounding: tuple[str, ...] | None = None
    effective: tuple[str, ...] | None = None
    inheritable: tuple[str, ...] | None = None
    permitted: tuple[str, ...] | None = None
    ambient: tuple[str, ...] | None = None


class Rlimit(Record, frozen=True):
    type: str
    soft: int
    hard: int


class IOPriority(Record, frozen=True):
    class_: Literal["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"] = msgspec.field(name="class")
    priority: int = 0


class Scheduler(Record, frozen=True):
    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] | None = None
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class ExecCPUAffinity(Record, frozen=True):
    initial: str = ""
    final: str = ""


class Process(Record, frozen=True):
    cwd: str
    args: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] | None = None
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    selinux_label: str = ""
    io_priority: IOPriority | None = None
    scheduler: Scheduler | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = msgspec.field(default=None, name="execCPUAffinity")


class Root(Record, frozen=True):
    path: str
    readonly: bool = False


class Mount(Record, frozen=True):
    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] | None = None
    uid_mappings: tuple[IDMapping, ...] | None = None
    gid_mappings: tuple[IDMapping, ...] | None = None


class Hook(Record, frozen=True):
    path: str
    args: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    timeout: int | None = None


class Hooks(Record, frozen=True):
    prestart: tuple[Hook, ...] | None = None
    create_runtime: tuple[Hook, ...] | None = None
    create_container: tuple[Hook, ...] | None = None
    start_container: tuple[Hook, ...] | None = None
    poststart: tuple[Hook, ...] | None = None
    poststop: tuple[Hook, ...] | None = None


class LinuxNamespace(Record, frozen=True):
    type: NamespaceType
    path: str = ""


class LinuxDevice(Record, frozen=True):
    """type: c, b, u (unbuffered character) or p (fifo)."""

    type: Literal["c", "b", "u", "p"]
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class LinuxNetDevice(Record, frozen=True):
    name: str = ""


class LinuxDeviceCgroup(Record, frozen=True):
    """type: a, c or b; major and minor None for every one; access: of r, w, m."""

    allow: bool
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class LinuxMemory(Record, frozen=True):
    """Bytes; -1 is no limit."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = msgspec.field(default=None, name="kernelTCP")
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class LinuxCPU(Record, frozen=True):
    """quota, period, burst in microseconds."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class LinuxPids(Record, frozen=True):
    """limit: None leaves it alone, 0 or below is no limit (as runc reads it)."""

    limit: int | None = None


class LinuxWeightDevice(Record, frozen=True):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class LinuxThrottleDevice(Record, frozen=True):
    """rate: bytes or operations a second."""

    major: int
    minor: int
    rate: int = 0


class LinuxBlockIO(Record, frozen=True):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[LinuxWeightDevice, ...] | None = None
    throttle_read_bps_device: tuple[LinuxThrottleDevice, ...] | None = None
    throttle_write_bps_device: tuple[LinuxThrottleDevice, ...] | None = None
    throttle_read_iops_device: tuple[LinuxThrottleDevice, ...] | None = msgspec.field(
        default=None, name="throttleReadIOPSDevice"
    )
    throttle_write_iops_device: tuple[LinuxThrottleDevice, ...] | None = msgspec.field(
        default=None, name="throttleWriteIOPSDevice"
    )


class LinuxHugepageLimit(Record, frozen=True):
    """page_size as the kernel's files name it: 2MB, 1GB."""

    page_size: str
    limit: int


class LinuxInterfacePriority(Record, frozen=True):
    name: str
    priority: int


class LinuxNetwork(Record, frozen=True):
    class_id: int | None = msgspec.field(default=None, name="classID")
    priorities: tuple[LinuxInterfacePriority, ...] | None = None


class LinuxRdma(Record, frozen=True):
    hca_handles: int | None = None
    hca_objects: int | None = None


class LinuxResources(Record, frozen=True):
    devices: tuple[LinuxDeviceCgroup, ...] | None = None
    memory: LinuxMemory | None = None
    cpu: LinuxCPU | None = None
    pids: LinuxPids | None = None
    block_io: LinuxBlockIO | None = msgspec.field(default=None, name="blockIO")
    hugepage_limits: tuple[LinuxHugepageLimit, ...] | None = None
    network: LinuxNetwork | None = None
    rdma: dict[str, LinuxRdma] | None = None
    unified: dict[str, str] | None = None


class LinuxSeccompArg(Record, frozen=True):
    index: int
    value: int
    op: SeccompOperator
    value_two: int = 0


class LinuxSyscall(Record, frozen=True):
    names: tuple[str, ...]
    action: SeccompAction
    errno_ret: int | None = None
    args: tuple[LinuxSeccompArg, ...] | None = None


class LinuxSeccomp(Record, frozen=True):
    default_action: SeccompAction
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[LinuxSyscall, ...] | None = None


class LinuxIntelRdt(Record, frozen=True):
    clos_id: str = msgspec.field(default="", name="closID")
    schemata: tuple[str, ...] | None = None
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_monitoring: bool = False


class LinuxMemoryPolicy(Record, frozen=True):
    mode: str = ""
    nodes: str = ""
    flags: tuple[str, ...] | None = None


class LinuxPersonality(Record, frozen=True):
    domain: Literal["LINUX", "LINUX32"] = "LINUX"
    flags: tuple[str, ...] | None = None


class LinuxTimeOffset(Record, frozen=True):
    secs: int = 0
    nanosecs: int = 0


class LinuxTimeOffsets(Record, frozen=True):
    boottime: LinuxTimeOffset | None = None
    monotonic: LinuxTimeOffset | None = None


class Linux(Record, frozen=True):
    namespaces: tuple[LinuxNamespace, ...] | None = None
    uid_mappings: tuple[IDMapping, ...] | None = None
    gid_mappings: tuple[IDMapping, ...] | None = None
    devices: tuple[LinuxDevice, ...] | None = None
    net_devices: dict[str, LinuxNetDevice] | None = None
    cgroups_path: str = ""
    resources: LinuxResources | None = None
    sysctl: dict[str, str] | None = None
    seccomp: LinuxSeccomp | None = None
    rootfs_propagation: Literal["", "private", "shared", "slave", "unbindable"] = ""
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    mount_label: str = ""
    intel_rdt: LinuxIntelRdt | None = None
    memory_policy: LinuxMemoryPolicy | None = None
    personality: LinuxPersonality | None = None
    time_offsets: LinuxTimeOffsets | None = None


class Spec(Record, frozen=True):
    """A bundle's config.json."""

    oci_version: str
    root: Root | None = None
    process: Process | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] | None = None
    hooks: Hooks | None = None
    annotations: dict[str, str] | None = None
    linux: Linux | None = None


class State(Record, frozen=True, omit_defaults=False):
    """What `state` prints and what hooks read on standard input."""

    oci_version: str
    id: str
    status: Literal["creating", "created", "running", "stopped", "paused"]
    pid: int
    bundle: str
    annotations: dict[str, str] = {}


_spec_decoder = msgspec.json.Decoder(Spec)
_process_decoder = msgspec.json.Decoder(Process)
_resources_decoder = msgspec.json.Decoder(LinuxResources)
_encoder = msgspec.json.Encoder()


def parse_spec(text: bytes) -> Spec:
    """A config.json as a Spec; InvalidArgument names the field that is wrong."""
    try:
        spec = _spec_decoder.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid OCI runtime spec: {error}") from error
    if not spec.oci_version.startswith("1."):
        raise InvalidArgument(f"unsupported OCI runtime spec version: {spec.oci_version!r}")
    return spec


def parse_process(text: bytes) -> Process:
    """The process document that `exec --process` takes."""
    try:
        return _process_decoder.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid OCI process: {error}") from error


def parse_resources(text: bytes) -> LinuxResources:
    """The resources document that `update --resources` takes."""
    try:
        return _resources_decoder.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid OCI resources: {error}") from error


def format_spec(spec: Spec) -> bytes:
    """A Spec as indented JSON, the way a bundle's config.json is written."""
    return msgspec.json.format(_encoder.encode(spec), indent=2)
