"""What is told of a container that changes engines, and what of it can't travel. Pure.

The description goes from Tare to Tare only: it is this version's own record, with a number for its format. The receiver
believes nothing of it that create wouldn't check.
"""

from __future__ import annotations

import hashlib

import msgspec

from tare.engine.check import network_kind
from tare.engine.options import ContainerConfig, EndpointOptions, HostOptions
from tare.engine.records import Container, ContainerState, MountPoint, Record
from tare.errors import InvalidArgument, Unsupported
from tare.network.records import BRIDGE, HOST, NONE
from tare.values.ids import is_id
from tare.values.names import check_container_name

FORMAT = 1
UPPER, LOG = "upper", "log"
VOLUME = "volume/"
MAX_NETWORKS = 1000


class PortableNetwork(Record, frozen=True, kw_only=True):
    """A network that the container is in."""

    name: str
    aliases: tuple[str, ...] = ()
    wish: EndpointOptions | None = None


class PortableVolume(Record, frozen=True, kw_only=True):
    """A volume that the container has. carried: its files go along."""

    name: str
    anonymous: bool = False
    labels: dict[str, str] | None = None
    carried: bool = True


class Obstacle(Record, frozen=True, kw_only=True):
    """Something that stays behind. kind: bind (a path of the host) or host (all else). about: in words."""

    kind: str
    about: str


class Portable(Record, frozen=True, kw_only=True):
    """A container on its way. token: of this departure; parts of another one are not its own.

    ran: it is to be started at its end. log_name: what its log files' names begin with. head_id: its last commit.
    """

    format: int = FORMAT
    token: str
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
    networks: tuple[PortableNetwork, ...] = ()
    volumes: tuple[PortableVolume, ...] = ()
    ran: bool = False
    stop_signal: int = 15
    log_name: str = ""
    head_id: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The streams that belong to it."""
        return (UPPER, LOG, *(VOLUME + volume.name for volume in self.volumes if volume.carried))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Portable).decode


def portable(
    container: Container,
    volume_labels: dict[str, dict[str, str] | None],
    *,
    token: str,
    ran: bool,
    with_volumes: bool,
) -> Portable:
    """The description of a container as it is. volume_labels: of each of its volumes, by name."""
    points = {point.name: point for point in container.mounts if point.type == "volume" and point.local is None}
    return Portable(
        token=token,
        id=container.id,
        name=container.name,
        created_ns=container.created_ns,
        image_id=container.image_id,
        layers=container.layers,
        path=container.path,
        args=container.args,
        config=container.config,
        host=msgspec.structs.replace(
            container.host,
            volumes_from=None,
            depends_on=None,
            links=None,
            mounts=tuple(mount for mount in container.host.mounts or () if mount.type != "image") or None,
        ),
        state=msgspec.structs.replace(
            container.state, status="exited" if container.state.started_ns else "created", pid=0, health=None
        ),
        mounts=tuple(point for point in container.mounts if point.type != "image"),
        networks=tuple(
            PortableNetwork(name=state.network, aliases=state.aliases, wish=state.wish) for state in container.endpoints
        ),
        volumes=tuple(
            PortableVolume(name=name, anonymous=point.anonymous, labels=volume_labels.get(name), carried=with_volumes)
            for name, point in points.items()
        ),
        ran=ran,
        stop_signal=container.stop_signal,
        log_name=container.log_path.rpartition("/")[2],
        head_id=container.head_id,
    )


def as_copy(moved: Portable, name: str) -> Portable:
    """The same as another container, of another name and id."""
    id_ = hashlib.sha256(f"{moved.token} {name}".encode()).hexdigest()
    hostname = "" if moved.config.hostname == moved.id[:12] else moved.config.hostname
    config = msgspec.structs.replace(moved.config, hostname=hostname or id_[:12])
    return msgspec.structs.replace(moved, id=id_, name=name, config=config, head_id="")


def obstacles(container: Container) -> list[Obstacle]:
    """What ties a container to its host or to other containers."""
    host = container.host
    found = []
    for point in container.mounts:
        if point.type == "bind":
            found.append(Obstacle(kind="bind", about=f"{point.destination} is {point.source} of the host"))
        elif point.type == "image":
            found.append(Obstacle(kind="host", about=f"{point.destination} shows image {point.name}"))
        elif point.local is not None:
            about = f"volume {point.name} mounts {point.local.device or point.local.type}, as its options say"
            found.append(Obstacle(kind="host", about=about))
    found += [
        Obstacle(kind="host", about=f"device {one.path_on_host}") for one in host.devices or () if one.path_on_host
    ]
    lists = {
        "rules for devices": host.device_cgroup_rules,
        "device requests": host.device_requests,
        "I/O limits of devices": (host.blkio_device_read_bps or ())
        + (host.blkio_device_write_bps or ())
        + (host.blkio_device_read_iops or ())
        + (host.blkio_device_write_iops or ())
        + (host.blkio_weight_device or ()),
        f"links to {', '.join(host.links or ())}": host.links,
        f"it depends on {', '.join(host.depends_on or ())}": host.depends_on,
        f"cgroup parent {host.cgroup_parent}": host.cgroup_parent,
        f"processors {host.cpuset_cpus}": host.cpuset_cpus,
        f"memory nodes {host.cpuset_mems}": host.cpuset_mems,
    }
    found += [Obstacle(kind="host", about=about) for about, value in lists.items() if value]
    modes = {"network": host.network_mode, "pid": host.pid_mode, "ipc": host.ipc_mode}
    found += [
        Obstacle(kind="host", about=f"it shares its {what} namespace with {mode}")
        for what, mode in modes.items()
        if mode.startswith("container:")
    ]
    return found


def user_networks(moved: Portable) -> list[str]:
    """The networks that have to be there."""
    return [network.name for network in moved.networks if network.name not in (BRIDGE, HOST, NONE)]


def format_portable(moved: Portable) -> bytes:
    """The description as a document."""
    return _encode(moved)


def parse_portable(document: bytes) -> Portable:
    """A document as a description. Raises InvalidArgument, Unsupported (of a later format)."""
    try:
        kind = msgspec.json.decode(document)
        if isinstance(kind, dict) and isinstance(kind.get("format"), int) and kind["format"] != FORMAT:
            raise Unsupported(f"a container in the format {kind['format']}, which this version of Tare does not know")
        moved = _decode(document)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid description of a container: {error}") from error
    if not is_id(moved.id) or not moved.path:
        raise InvalidArgument("invalid description of a container: a wrong id, or no command")
    if len(moved.networks) > MAX_NETWORKS or len(moved.volumes) > MAX_NETWORKS:
        raise InvalidArgument("invalid description of a container: too many networks or volumes")
    if not 0 < moved.stop_signal < 65 or network_kind(moved.host.network_mode) == "":
        raise InvalidArgument("invalid description of a container: a wrong signal or network")
    check_container_name(moved.name)
    names = {volume.name for volume in moved.volumes}
    for point in moved.mounts:
        if point.type == "volume" and point.name not in names:
            raise InvalidArgument(f"invalid description of a container: nothing is told of volume {point.name[:100]!r}")
    return moved
