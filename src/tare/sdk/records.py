"""What the library hands out: frozen records. `raw` is the engine's own JSON, for what has no field here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tare.sdk.errors import CommandFailed

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command printed and how it ended. With a terminal everything is in stdout."""

    exit_code: int
    stdout: bytes
    stderr: bytes = b""
    command: str = ""

    @property
    def output(self) -> str:
        """stdout as text."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        """stderr as text."""
        return self.stderr.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.exit_code == 0

    def check(self) -> Result:
        """Itself, or CommandFailed if it ended with anything but 0."""
        if self.exit_code:
            raise CommandFailed(self, self.command)
        return self


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream. stream: "stdout" or "stderr"; with a terminal always "stdout"."""

    stream: str
    data: bytes

    @property
    def text(self) -> str:
        """The data as text."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of a container and where the host has it. host_port 0: exposed, not published."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True)
class MountPoint:
    """Something mounted in a container."""

    kind: str
    source: str
    target: str
    writable: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's place in a network."""

    network: str
    ip: str
    gateway: str
    mac: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerSummary:
    """One line of the list of containers."""

    id: str
    name: str
    image: str
    image_id: str
    command: str
    created: datetime
    state: str
    status: str
    ports: tuple[PublishedPort, ...]
    labels: Mapping[str, str]
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ContainerDetails:
    """All about one container. state: created, running, paused, restarting, removing, exited or dead."""

    id: str
    name: str
    image: str
    image_id: str
    created: datetime
    state: str
    running: bool
    paused: bool
    pid: int
    exit_code: int
    oom_killed: bool
    error: str
    started: datetime | None
    finished: datetime | None
    health: str
    restart_count: int
    command: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    tty: bool
    ports: tuple[PublishedPort, ...]
    networks: Mapping[str, Attachment]
    mounts: tuple[MountPoint, ...]
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Image:
    """An image. size_bytes: what it takes, layers that others share included."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    created: datetime | None
    size_bytes: int
    labels: Mapping[str, str]
    architecture: str = ""
    os: str = ""
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of a pull, push or load."""

    status: str
    id: str = ""
    current: int = 0
    total: int = 0
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """Credentials for a registry. An access token is a password."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a container uses. cpu_percent: of one CPU, over the second before; memory without reclaimable cache."""

    read: datetime
    cpu_percent: float
    cpu_total_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    network_received_bytes: int
    network_sent_bytes: int
    block_read_bytes: int
    block_written_bytes: int
    processes: int
    raw: Raw = field(default_factory=dict, repr=False, compare=False)

    @property
    def memory_percent(self) -> float:
        """Memory as a part of its limit."""
        return 100 * self.memory_bytes / self.memory_limit_bytes if self.memory_limit_bytes else 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. kind: container, image, volume, network …; id: whose."""

    time: datetime
    kind: str
    action: str
    id: str
    attributes: Mapping[str, str]
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Change:
    """A path that a container has changed. kind: modified, added or deleted."""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class PathInfo:
    """A file in a container. mode: as in os.stat_result.st_mode, permission bits only."""

    name: str
    size_bytes: int
    mode: int
    modified: datetime
    is_directory: bool
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume."""

    name: str
    driver: str
    mountpoint: str
    labels: Mapping[str, str]
    options: Mapping[str, str]
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Trashed:
    """Something removed. kind: container, volume or image; size_bytes: what deleting it for good would free."""

    kind: str
    id: str
    name: str
    names: tuple[str, ...]
    removed: datetime
    until: datetime
    size_bytes: int
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Network:
    """A network."""

    id: str
    name: str
    driver: str
    internal: bool
    subnets: tuple[str, ...]
    labels: Mapping[str, str]
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Version:
    """What the engine is."""

    version: str
    api_version: str
    minimum_api_version: str
    os: str
    architecture: str
    kernel: str
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine's state."""

    name: str
    version: str
    containers: int
    running: int
    paused: int
    stopped: int
    images: int
    cpus: int
    memory_bytes: int
    storage_driver: str
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Carried:
    """What went to another engine: how many layers of how many."""

    layers: int
    total: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed. reclaimed_bytes counts what waits in the trash, too."""

    removed: tuple[str, ...]
    reclaimed_bytes: int


@dataclass(frozen=True, slots=True)
class Health:
    """A health check. test: a shell's line, or a command's words; seconds; None: the engine's default."""

    test: str | tuple[str, ...]
    interval_s: float | None = None
    timeout_s: float | None = None
    start_period_s: float | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `engine.fsck()` found wrong. remedy: what a repair does, or did if it is repaired; "": nothing."""

    kind: str
    subject: str
    problem: str
    remedy: str
    repaired: bool
    raw: Raw = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Packed:
    """What `engine.pack()` did, and what is packed now. freed_bytes: less than 0 if files were made plain.

    waiting: files that are packed later, since a container sees them or the disk is full. packed_files show
    packed_bytes, of which pack_bytes are on the disk.
    """

    files: int
    freed_bytes: int
    waiting: int
    packed_files: int
    packed_bytes: int
    pack_bytes: int
    raw: Raw = field(repr=False, compare=False)
