"""A container's binds, volumes, images and tmpfs as the OCI mounts they become. Pure, but it may make sources."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

from tare.engine import mount_specs
from tare.engine.options import HostOptions, MountOptions
from tare.engine.records import MountPoint
from tare.errors import InvalidArgument
from tare.oci.runtime_spec import Mount
from tare.runtime.mount_options import option_names
from tare.runtime.plan_mounts import LAYER_OPTION, LAYERS_TYPE, SUBPATH_OPTION
from tare.volumes.records import LocalMount


def check_sources(host: HostOptions) -> None:
    """Raises InvalidArgument, with Docker's text, if what a `--mount type=bind` shows isn't there."""
    for mount in host.mounts or ():
        if mount.type != "bind" or os.path.lexists(mount.source):
            continue
        if not (mount.bind_options and mount.bind_options.create_mountpoint):
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
            )


def prepare_sources(host: HostOptions) -> None:
    """Makes the missing host directories of `-v` (of `--mount` only if it is asked to), as Docker does."""
    wanted = [mount_specs.parse_bind(bind).point.source for bind in host.binds or ()]
    for mount in host.mounts or ():
        if mount.type == "bind" and mount.bind_options and mount.bind_options.create_mountpoint:
            wanted.append(posixpath.normpath(mount.source))
    for source in wanted:
        if source and not os.path.lexists(source):
            os.makedirs(source, mode=0o755, exist_ok=True)


def check_propagation(points: tuple[MountPoint, ...]) -> None:
    """Raises InvalidArgument, with Docker's text, if a bind is to share later mounts with a source that shares none.

    Such a bind would be made all the same, and would never see any.
    """
    for point in points:
        kind = point.propagation.removeprefix("r")
        if point.type != "bind" or kind not in ("shared", "slave") or not os.path.exists(point.source):
            continue
        place, tags = _mount_of(point.source)
        if not any(tag.startswith(("shared:",) if kind == "shared" else ("shared:", "master:")) for tag in tags):
            what = "a shared" if kind == "shared" else "a shared or slave"
            raise InvalidArgument(f"path {point.source} is mounted on {place} but it is not {what} mount")


def _mount_of(path: str) -> tuple[str, list[str]]:
    """Where the mount is that holds a path, and the optional fields of its line (proc_pid_mountinfo(5))."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
            number = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        fields = next(line.split(" ") for line in lines if line.startswith(f"{number} "))
    return fields[4], fields[6 : fields.index("-")]


def oci_mounts(
    host: HostOptions, points: tuple[MountPoint, ...], layers: Mapping[str, tuple[str, ...]] = {}
) -> list[Mount]:
    """The OCI mounts of a container's binds, volumes, images and tmpfs, parents before children.

    layers: the directories behind each image's mount, by its place (see image_mounts.py).
    """
    found = []
    for point in points:
        if point.type == "bind":
            found.append(_bind(point, point.source, recursive=not point.non_recursive))
        elif point.type == "volume":
            found.append(_volume(point))
        elif point.type == "image":
            found.append(_image(point, layers[point.destination]))
    for target, text in (host.tmpfs or {}).items():
        found.append(_tmpfs(target, tuple(option for option in text.split(",") if option)))
    for mount in host.mounts or ():
        if mount.type == "tmpfs":
            found.append(_tmpfs(mount.target, _tmpfs_options(mount)))
    return parents_first(found)


def parents_first(mounts: list[Mount]) -> list[Mount]:
    """In an order in which none hides another; those of one depth stay as they were."""
    return sorted(mounts, key=lambda mount: mount.destination.count("/"))


def _access(point: MountPoint) -> tuple[str, ...]:
    """Read-only means what is mounted below, too, as in Docker from 25 on, unless the user wants otherwise."""
    if point.rw:
        return ("rw",)
    if point.non_recursive or point.read_only_non_recursive or point.propagation not in ("", "rprivate", "private"):
        return ("ro",)
    return ("ro", "rro")


def _bind(point: MountPoint, source: str, *, recursive: bool, more: tuple[str, ...] = ()) -> Mount:
    return Mount(
        destination=point.destination,
        type="bind",
        source=source,
        options=("rbind" if recursive else "bind", point.propagation or "rprivate", *_access(point), *more),
    )


def _volume(point: MountPoint) -> Mount:
    """The volume's directory, at which its options may have mounted something; or the directory that they bind."""
    local = point.local
    subpath = (f"{SUBPATH_OPTION}{point.subpath}",) if point.subpath else ()
    if local is None or not local.is_bind:
        return _bind(point, point.source, recursive=True, more=subpath)
    more = (*_known_options(local), *subpath)
    return _bind(point, local.device, recursive="rbind" in local.options, more=more)


def _image(point: MountPoint, lower: tuple[str, ...]) -> Mount:
    options = [f"{LAYER_OPTION}{path}" for path in lower]
    if point.subpath:
        options.append(f"{SUBPATH_OPTION}{point.subpath}")
    return Mount(destination=point.destination, type=LAYERS_TYPE, source=point.name, options=tuple(options))


def _known_options(local: LocalMount) -> tuple[str, ...]:
    """Those that mean something to a bind mount: mount(2) drops the others, too."""
    known = set(option_names()) - {"bind", "rbind", "rw"}
    return tuple(word for word in local.options if word in known and word.lstrip("r") not in _PROPAGATION_WORDS)


_PROPAGATION_WORDS = frozenset(("private", "shared", "slave", "unbindable"))


def _tmpfs_options(mount: MountOptions) -> tuple[str, ...]:
    found = []
    if mount.tmpfs_options and mount.tmpfs_options.size_bytes:
        found.append(f"size={mount.tmpfs_options.size_bytes}")
    if mount.tmpfs_options and mount.tmpfs_options.mode:
        found.append(f"mode={mount.tmpfs_options.mode:o}")
    found += [option[0] for option in (mount.tmpfs_options and mount.tmpfs_options.options) or ()]
    if mount.read_only:
        found.append("ro")
    return tuple(found)


def _tmpfs(target: str, options: tuple[str, ...]) -> Mount:
    defaults = ("noexec", "nosuid", "nodev")
    opposites = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
    kept = tuple(default for default in defaults if opposites[default] not in options and default not in options)
    destination = mount_specs.check_destination(target, "tmpfs")
    return Mount(destination=destination, type="tmpfs", source="tmpfs", options=(*kept, *options))
